"""A peer's implementation in our model: mambapy's bidirectional block with its parallel scan (PyPI mambapy).

Optional: `pip install -r requirements-bench.txt`. Without it, benchmarks skip the peer with that reason.
"""

import importlib.util
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MISSING = "mambapy is not installed: pip install -r requirements-bench.txt"
RENAMED = {"A_b_log": "A_log_b"}  # our parameter names -> mambapy's, where they differ


def mambapy_problem() -> str | None:
    return None if importlib.util.find_spec("mambapy") else MISSING


def use_mambapy(model: nn.Module) -> None:
    """Replace every BiMamba mixer of `model` by mambapy's block with the same weights."""
    from mambapy.vim import MambaConfig, VMambaBlock  # pyright: ignore[reportMissingImports]

    for block in [module for module in model.modules() if hasattr(module, "mixer")]:
        ours = cast(Any, block.mixer)
        config = MambaConfig(
            d_model=ours.in_proj.in_features,
            n_layers=1,
            d_state=ours.d_state,
            expand_factor=ours.inner // ours.in_proj.in_features,
        )
        theirs = VMambaBlock(config)
        theirs.load_state_dict({str(RENAMED.get(name, name)): value for name, value in ours.state_dict().items()})
        block.mixer = theirs


def pscan_scan(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, delta_bias: Tensor, **_: Any
) -> Tensor:
    """`ops.selective_scan_fn` with softplus, forward only, (B, I, L) -> (B, I, L), as mambapy's block computes it."""
    from mambapy.pscan import pscan  # pyright: ignore[reportMissingImports]

    x_BLI, delta_BLI = u.transpose(1, 2), F.softplus(delta.transpose(1, 2) + delta_bias)
    decay = torch.exp(delta_BLI.unsqueeze(-1) * A)
    states = pscan(decay, delta_BLI.unsqueeze(-1) * B.transpose(1, 2).unsqueeze(2) * x_BLI.unsqueeze(-1))
    y_BLI = (states @ C.transpose(1, 2).unsqueeze(-1)).squeeze(3) + D * x_BLI
    return (y_BLI * F.silu(z.transpose(1, 2))).transpose(1, 2)
