"""Recipes of the family ``initialization``."""
