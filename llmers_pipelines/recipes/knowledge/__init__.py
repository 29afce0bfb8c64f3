"""Recipes of the family ``knowledge``."""
