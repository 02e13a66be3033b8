"""The training-time study: the original's experiments with either pipeline, and the ladder between the two."""
