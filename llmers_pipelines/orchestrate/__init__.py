"""From recipes to Dagster assets: the only package that knows Dagster."""
