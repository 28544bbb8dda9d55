"""Tasks, one folder each: the meaning of a network's outputs, the metric and the loss."""
