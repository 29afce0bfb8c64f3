"""One training loop for all backbones, its loaders, and what it returns."""
