#!/usr/bin/env bash
# The README's results on simulated studies: raw NIfTI to a report, then baselines, controls and map checks.
set -euo pipefail
make demo
make controls
