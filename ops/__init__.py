"""Selective scan and causal convolution on any device, with the signatures of mamba_ssm and causal_conv1d, and what a
bidirectional mixer makes of them."""

from ops.bimamba import Direction
from ops.dispatch import (
    Backend,
    add_norm_fn,
    available_backends,
    bimamba_fn,
    causal_conv1d_fn,
    selective_scan_fn,
)

__all__ = [
    "Backend",
    "Direction",
    "add_norm_fn",
    "available_backends",
    "bimamba_fn",
    "causal_conv1d_fn",
    "selective_scan_fn",
]
