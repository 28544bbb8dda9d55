"""Bonsai as a service: its flows under Prefect, their forms and pages, and the local server that runs them; nothing else knows Prefect."""
