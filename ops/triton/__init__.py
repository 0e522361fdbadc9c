"""The kernels of ops in Triton, for NVIDIA and AMD GPUs.

ops/triton/backend.py imports Triton and the kernels only where a call needs them.
"""
