"""Recipes of the family ``guidance``."""
