"""Text encoders and what checks their vectors."""
