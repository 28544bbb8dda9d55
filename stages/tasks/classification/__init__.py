"""One label a sample: the class with the highest of as many logits."""
