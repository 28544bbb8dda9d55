"""The verbs: one stage each; no stage imports another."""
