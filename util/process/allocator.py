"""Makes the C library's allocator keep the memory of a training step for the next one.

By default glibc maps every tensor of 32 MiB or more anew and unmaps it when it is freed, so that the system clears
and maps its pages in every step: at patch 4 a tenth to a fifth of a step's time.
"""

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of mallopt's parameters, malloc.h
LARGEST_KEPT = 512 << 20  # bytes, more than any activation or weight of the registered models on one volume
USERS_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES")


def keep_memory() -> bool:
    """Serve tensors up to 512 MiB from memory that stays with the process. Without effect, and False, where the C
    library is not glibc or the environment sets its thresholds already."""
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in USERS_OWN):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_KEPT) and mallopt(TRIM_THRESHOLD, 2**31 - 1))
