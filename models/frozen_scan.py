"""A bidirectional Mamba mixer as a linear map of the tokens, with step sizes, B, C and gate held constant.

The gradient of this map is the contribution of each token to the mixer's output.
Shape suffixes: B batch, L tokens, E width, I inner channels.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from models.blocks.mixers import BiMamba
from ops import dispatch


class FrozenScan(NamedTuple):
    """One entry per direction, forward first. The sum of the outputs is the mixer's output."""

    values: list[Tensor]
    """(B, I, L) inputs u of the scan, as leaves that require a gradient."""
    outputs: list[Tensor]
    """(B, L, E), linear in the values."""


def frozen_scan(mixer: BiMamba, tokens_BLE: Tensor) -> FrozenScan:
    """The mixer on tokens (B, L, E) as a linear map of its values u, computed by the linear-time scan.

    The selective scan is y_t = sum over j <= t of C_t exp(A (delta_{j+1} + ... + delta_t)) delta_j B_j u_j, plus D u_t,
    times the gate silu(z_t) (docs/method.md#bidirectional-mamba). Step sizes delta, B, C and z are computed from the
    tokens and then held constant. A gradient with respect to u_j then shows only how much of token j the scan carries
    to every position t: the hidden attention of a scan (Ali et al. 2024, arXiv 2403.01590), without an L x L matrix.
    """
    suffixes = getattr(mixer, "suffixes", mixer.SUFFIXES)
    with torch.no_grad():
        x_BIL, z_BIL = mixer.in_proj(tokens_BLE).transpose(1, 2).chunk(2, dim=1)
    values, outputs = [], []
    for suffix, reverse in zip(suffixes, (False, True)):
        with torch.no_grad():
            weights = mixer.direction(suffix)
            u_BIL = dispatch.conv(weights.conv_inputs(x_BIL, reverse), mixer.backend)
            constants = weights.scan_inputs(u_BIL, z_BIL, reverse)
        u_BIL = u_BIL.detach().requires_grad_()
        y_BIL, _ = dispatch.scan(constants._replace(u=u_BIL), mixer.backend)
        values.append(u_BIL)
        outputs.append(F.linear(y_BIL.transpose(1, 2) / len(suffixes), mixer.out_proj.weight.detach()))
    return FrozenScan(values, outputs)
