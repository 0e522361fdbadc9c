"""Comparison with the bidirectional mixer of hustvl/Vim ("v2"), with the same weights: output and all gradients.

Their module runs on a CPU, with their reference functions in place of the fused kernel of both directions.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from models.blocks.mixers import BiMamba
from tests.verification.options import Case, Options
from tests.verification.peers import importable, load, named, stand_in
from tests.verification.tally import Skipped, Tally

GRID = {
    "seqlen": [1, 2, 5, 16, 64, 125],
    "width": [16, 48, 64],
    "d_state": [4, 8, 16],
}


def run(options: Options) -> Tally:
    if options.source is None:
        raise Skipped("--source of hustvl/Vim is not given")
    conv = load_conv(options)
    packages = {"mamba_ssm": options.source / "mamba-1p1p1/mamba_ssm"}
    absent = stand_in("selective_scan_cuda"), stand_in("causal_conv1d_cuda")
    package = stand_in("causal_conv1d", causal_conv1d_fn=conv, causal_conv1d_update=None)
    tally = Tally()
    with importable(packages, (*absent, package)):
        interface = load(options.source / "mamba-1p1p1/mamba_ssm/ops/selective_scan_interface.py")
        module = load(options.source / "mamba-1p1p1/mamba_ssm/modules/mamba_simple.py")
        vars(interface)["selective_scan_fn"] = interface.selective_scan_ref
        vars(module)["mamba_inner_fn_no_out_proj"] = without_projection(interface)
        torch.manual_seed(options.seed)
        for case in options.chosen(GRID):
            _same_mixer(tally, module, case)
    return tally


def load_conv(options: Options) -> Callable[..., Tensor]:
    """Their reference of the convolution, from the copy of causal_conv1d in their source tree."""
    assert options.source is not None
    with importable(
        {"causal_conv1d": options.source / "causal-conv1d/causal_conv1d"}, (stand_in("causal_conv1d_cuda"),)
    ):
        return load(options.source / "causal-conv1d/causal_conv1d/causal_conv1d_interface.py").causal_conv1d_ref


def without_projection(interface: ModuleType) -> Callable[..., Tensor]:
    """Their reference of one direction, with an identity projection: (B, 2I, L) -> (B, I, L)."""

    def inner(
        xz: Tensor, conv_w: Tensor, conv_b: Tensor, x_proj: Tensor, dt_proj: Tensor, *rest: Any, **more: Any
    ) -> Tensor:
        identity = torch.eye(xz.shape[1] // 2)
        y_BLI = interface.mamba_inner_ref(xz, conv_w, conv_b, x_proj, dt_proj, identity, None, *rest, **more)
        return y_BLI.transpose(1, 2)

    return inner


def _same_mixer(tally: Tally, module: ModuleType, case: Case) -> None:
    dim, states = case["width"], case["d_state"]
    theirs = module.Mamba(dim, d_state=states, bimamba_type="v2", if_divide_out=True)
    for parameter in theirs.parameters():  # by default, A, D and all rows of B are equal
        parameter.data += 0.1 * torch.randn_like(parameter)
    ours = BiMamba(dim, 1, d_state=states, d_conv=4, expand=2)
    ours.load_state_dict(theirs.state_dict())
    tokens = torch.randn(2, case["seqlen"], dim)
    weight = torch.randn_like(tokens)
    pairs: dict[str, list[Tensor]] = {}
    for mixer in (ours, theirs):
        leaf = tokens.clone().requires_grad_()
        out = mixer(leaf)
        (out * weight).sum().backward()
        assert leaf.grad is not None
        pairs.setdefault("output", []).append(out)
        pairs.setdefault("gradient of the input", []).append(leaf.grad)
        for name, parameter in mixer.named_parameters():
            pairs.setdefault(f"gradient of {name}", []).append(parameter.grad)
    tally.near(named(case), {name: (a, b) for name, (a, b) in pairs.items()}, of_largest=2e-5)
