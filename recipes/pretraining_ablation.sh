#!/usr/bin/env bash
# What objective, mask ratio, scan order, fidelity and mixer are worth on simulated studies: 3 seeds, hours on 2 cores.
set -euo pipefail
python -m benchmarks.bench_pretraining
