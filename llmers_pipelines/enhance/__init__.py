"""Parts that carry knowledge into a backbone: initializers, fusions, auxiliary losses."""
