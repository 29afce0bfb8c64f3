"""Fine-tuning of language models and encoders: low-rank adapters over frozen base models."""
