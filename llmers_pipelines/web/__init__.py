"""The lineage pages: read what is stored, show it, change nothing."""
