"""Selective scan and causal convolution on any device, with the signatures of mamba_ssm and causal_conv1d."""

from ops.dispatch import Backend, available_backends, causal_conv1d_fn, selective_scan_fn

__all__ = ["Backend", "available_backends", "causal_conv1d_fn", "selective_scan_fn"]
