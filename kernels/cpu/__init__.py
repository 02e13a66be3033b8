"""The mel kernel for the CPU: SIMD over frames, compiled by numba."""
