"""The way from a recipe to packages."""
