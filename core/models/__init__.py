"""Chord labels and their spelling, networks, checkpoints and the PyTorch predictor."""
