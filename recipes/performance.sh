#!/usr/bin/env bash
# Time and memory of scans and training steps beside the machine's limits; with a GPU also its kernels.
set -euo pipefail
make bench
if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    make bench-gpu
fi
