"""The kernels of ops in Triton, for NVIDIA and AMD GPUs; imported only where one is asked for
(ops/triton/backend.py)."""
