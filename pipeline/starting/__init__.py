"""What a user begins with: a recipe, a target and a network written for their images."""
