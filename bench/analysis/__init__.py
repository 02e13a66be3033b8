"""Records in, findings out: figures and sentences."""
