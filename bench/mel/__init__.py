"""What the mel spectrograms cost: measured and written as records."""
