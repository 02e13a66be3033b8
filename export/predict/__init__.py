"""The chord predictor without PyTorch: providers, placement, many files."""
