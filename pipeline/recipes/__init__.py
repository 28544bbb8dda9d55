"""Recipes: what they may say, and those that ship."""
