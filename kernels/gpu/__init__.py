"""The mel kernel for NVIDIA GPUs: one launch, compiled by numba-CUDA."""
