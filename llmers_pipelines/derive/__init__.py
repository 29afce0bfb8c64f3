"""Pure functions of assets: reducers, neighbours, pooled vectors."""
