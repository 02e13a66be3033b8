"""Fused training blocks of the original's network: convolution, max-pool and ReLU."""
