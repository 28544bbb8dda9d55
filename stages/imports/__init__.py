"""Code and files of the user's that a recipe names: found, imported, watched and refused."""
