"""The specification of the step before every mixer: add to the residual stream, rotate channel pairs, normalise.

Shape suffixes: B batch, L tokens, E width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def rotate(x_BLE: Tensor, rotation: Tensor) -> Tensor:
    """(B, L, E) -> (B, L, E): pair (x[2i], x[2i+1]) is rotated by the angle of rotation[..., i]. E must be even."""
    pairs = torch.view_as_complex(x_BLE.unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation.to(pairs.dtype)).flatten(-2)


def add_norm(
    hidden_BLE: Tensor,
    residual_BLE: Tensor | None,
    rotation: Tensor | None,
    weight: Tensor,
    eps: float,
    scale_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`ops.add_norm_fn` in plain PyTorch."""
    total = hidden_BLE.to(torch.promote_types(hidden_BLE.dtype, torch.float32))
    if scale_B is not None:
        total = total * scale_B.to(total.dtype)[:, None, None]
    if residual_BLE is not None:
        total = total + residual_BLE
    if rotation is not None:
        total = rotate(total, rotation)
    return F.rms_norm(total, weight.shape, weight.to(total.dtype), eps).to(weight.dtype), total
