"""Chord labels, networks, checkpoints and the PyTorch predictor."""
