"""Full-ranking and CTR evaluation: tables per user, metrics, slices, significance, the gate."""
