"""Catalogs, interactions and splits: from a person's files to validated, versioned tables."""
