"""Writes the files that a user starts with: a recipe, a target and a network for their images."""
