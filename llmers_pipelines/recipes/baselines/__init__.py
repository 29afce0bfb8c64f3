"""Recipes of the family ``baselines``."""
