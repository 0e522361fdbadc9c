"""The scans of Mamba and Mamba2 and causal convolution on any device, with the signatures of mamba_ssm and
causal_conv1d; and the mixers, norms, patch errors and resampling that the models build from them."""

from ops.backends import Backend, available_backends, portable_operators
from ops.dispatch import (
    add_norm_fn,
    bimamba_block_fn,
    bimamba_fn,
    causal_conv1d_fn,
    gather_patches_fn,
    linear_patch_error_fn,
    mamba_fn,
    patch_error_fn,
    resample_affine_fn,
    selective_scan_fn,
    ssd_scan_fn,
)
from ops.reference.bimamba import Direction
from ops.reference.patches import patch_moments

__all__ = [
    "Backend",
    "Direction",
    "add_norm_fn",
    "available_backends",
    "bimamba_block_fn",
    "bimamba_fn",
    "causal_conv1d_fn",
    "gather_patches_fn",
    "linear_patch_error_fn",
    "mamba_fn",
    "patch_error_fn",
    "patch_moments",
    "portable_operators",
    "resample_affine_fn",
    "selective_scan_fn",
    "ssd_scan_fn",
]
