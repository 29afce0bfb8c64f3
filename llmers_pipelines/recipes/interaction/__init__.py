"""Recipes of the family ``interaction``."""
