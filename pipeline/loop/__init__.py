"""Bonsai in a training loop of one's own: prune, quantise and deploy a module in hand."""
