"""A class for each pixel: the one with the highest of as many maps of logits."""
