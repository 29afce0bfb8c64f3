"""LLM-enhanced recommender systems as versioned Dagster assets."""

__version__ = "0.1.0"
