"""Conventional recommenders, one backbone per file, behind named seams."""
