"""Recipes of the family ``distillation``."""
