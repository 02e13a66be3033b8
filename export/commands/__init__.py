"""The commands infer, export and app."""
