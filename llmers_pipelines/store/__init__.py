"""What was paid for and must survive: immutable segments of answers and vectors."""
