"""What layers, lines and an epoch's parts cost: measured and written as records."""
