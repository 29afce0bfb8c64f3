"""Recipes of the family ``utilization``."""
