"""Served bundles, the scorer that reads them, and the model registry. No language model here."""
