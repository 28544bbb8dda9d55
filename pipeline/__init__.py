"""The way from a recipe to packages: the command line, Python and Prefect call it."""
