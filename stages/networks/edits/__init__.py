"""Edits: recorded changes of a network. A network is its architecture, its edits in order, and its weights."""
