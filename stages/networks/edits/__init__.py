"""What was changed in a network: a network is its architecture, its edits in order, and its weights."""
