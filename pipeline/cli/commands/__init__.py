"""One file per command, or per few that belong together; `pipeline/cli/main.py` lists them.

Everything heavy is imported inside the command that needs it, so that help and typing errors cost nothing.
"""
