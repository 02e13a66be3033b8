"""Interactive pages made from records."""
