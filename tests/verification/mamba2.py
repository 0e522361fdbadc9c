"""Comparison with Mamba2 of mamba_ssm: the scan with three of their references, and the mixer with their weights.

The references compute by chunks, by listing 1 of the paper, and step by step. None needs a GPU. Values and gradients
are compared.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.blocks.mamba2 import NORM_EPS, Mamba2
from ops import ssd_scan_fn
from tests.verification.options import Case, Options
from tests.verification.peers import importable, load, named, stand_in
from tests.verification.tally import Skipped, Tally

SCANS = {
    "reference": ["chunks", "listing", "steps"],
    "itype": [torch.float32, torch.float16, torch.bfloat16],
    "seqlen": [32, 64, 96, 128, 256],
    "ngroups": [1, 2, 8],
    "chunk": [16, 32],
    "heads": [8],
    "has_D": [False, True],
    "has_bias": [False, True],
    "softplus": [False, True],
    "batch": [1, 2],
}
MIXERS = {
    "directions": ["forward", "both"],
    "seqlen": [1, 3, 16, 64, 125],
    "width": [32, 64],
    "head_dim": [8, 16],
    "d_state": [8, 16],
}
TOLERANCES = {torch.float32: (6e-4, 2e-3), torch.float16: (3e-3, 5e-3), torch.bfloat16: (3e-2, 5e-2)}
"""rtol and atol of outputs in the tests of mamba_ssm. Tolerances of gradients are relative to the largest value."""


class Theirs(NamedTuple):
    """Modules of mamba_ssm."""

    combined: ModuleType
    listing: ModuleType
    mixer: ModuleType


def run(options: Options, scan: Callable[..., Tensor] = ssd_scan_fn) -> Tally:
    """scan: the function under test."""
    tally = Tally()
    with their_modules(options) as theirs:
        for case in options.chosen(SCANS):
            _same_scan(tally, theirs, scan, case)
        torch.manual_seed(options.seed)
        for case in options.chosen(MIXERS):
            _same_mixer(tally, theirs, case)
    return tally


@contextmanager
def their_modules(options: Options) -> Iterator[Theirs]:
    """Their modules, with reference functions in place of GPU kernels."""
    if options.source is None:
        raise Skipped("--source of state-spaces/mamba is not given")
    layer_norm = stand_in("mamba_ssm.ops.triton.layer_norm", _layer_norm_fwd=None)
    conv = stand_in("causal_conv1d", causal_conv1d_fn=_convolution, __path__=[])
    kernels = ("causal_conv1d_fwd_function", "causal_conv1d_bwd_function", "causal_conv1d_update_function")
    functions = stand_in("causal_conv1d.cpp_functions", **dict.fromkeys(kernels))
    root = options.source / "mamba_ssm"
    with importable({"mamba_ssm": root}, (layer_norm, conv, functions)):
        interface = load(root / "ops/selective_scan_interface.py", "mamba_ssm.ops.selective_scan_interface")
        vars(interface)["selective_scan_fn"] = interface.selective_scan_ref
        combined = load(root / "ops/triton/ssd_combined.py", "mamba_ssm.ops.triton.ssd_combined")
        norms = load(root / "ops/triton/layernorm_gated.py")
        vars(combined)["rmsnorm_fn"] = norms.rms_norm_ref
        vars(combined)["mamba_split_conv1d_scan_combined"] = _without_chunks(combined.mamba_split_conv1d_scan_ref)
        yield Theirs(combined, load(root / "modules/ssd_minimal.py"), load(root / "modules/mamba2_simple.py"))


def _convolution(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    assert activation in ("silu", "swish")
    padded = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
    return torch.nn.functional.silu(torch.nn.functional.conv1d(padded, weight.unsqueeze(1), bias, groups=len(weight)))


def _without_chunks(reference: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Their reference of the whole mixer, with the arguments of their kernel."""

    def call(*inputs: Any, seq_idx: None, initial_states: None, **more: Any) -> Tensor:
        return reference(*inputs, **more)

    return call


def _same_scan(tally: Tally, theirs: Theirs, scan: Callable[..., Tensor], case: Case) -> None:
    torch.manual_seed(0)
    inputs = _inputs(case)
    softplus = case["softplus"]
    weight = torch.randn(inputs["x"].shape)
    results = {}
    for whose, compute in (("ours", scan), ("theirs", lambda **given: _reference(theirs, case, **given))):
        leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
        out = compute(**leaves, dt_softplus=softplus)
        (out.float() * weight).sum().backward()
        results[whose] = {"output": out, **{f"gradient of {name}": leaf.grad for name, leaf in leaves.items()}}
    rtol, atol = TOLERANCES[case["itype"]]
    pairs = {name: (ours, results["theirs"][name]) for name, ours in results["ours"].items()}
    kind = f"{str(case['itype']).removeprefix('torch.')} scan's"
    tally.near(named(case), pairs, atol=atol, rtol=rtol, of_largest=rtol, kind=kind)


def _inputs(case: Case) -> dict[str, Tensor]:
    """Inputs whose decay is above exp(-88): below, the gradients of their reference by chunks are NaN."""
    batch, length, heads, groups = (case[name] for name in ("batch", "seqlen", "heads", "ngroups"))
    inputs = {
        "x": torch.randn(batch, length, heads, 8),
        "dt": torch.rand(batch, length, heads) * 2 - 4 if case["softplus"] else torch.rand(batch, length, heads) / 5,
        "A": -torch.rand(heads) - 0.1,
        "B": torch.randn(batch, length, groups, 16) / 4,
        "C": torch.randn(batch, length, groups, 16) / 4,
    }
    inputs = {name: value if name == "A" else value.to(case["itype"]) for name, value in inputs.items()}
    optional = {"D": (case["has_D"], torch.randn(heads)), "dt_bias": (case["has_bias"], torch.rand(heads) / 10)}
    return inputs | {name: value for name, (wanted, value) in optional.items() if wanted}


def _reference(theirs: Theirs, case: Case, **given: Any) -> Tensor:
    return {"chunks": _chunks, "listing": _listing, "steps": _steps}[case["reference"]](theirs, case["chunk"], **given)


def _chunks(
    theirs: Theirs, chunk: int, *, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **more: Any
) -> Tensor:
    return theirs.combined.ssd_chunk_scan_combined_ref(x, dt, A, B, C, chunk, **more)


def _steps(
    theirs: Theirs, chunk: int, *, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **more: Any
) -> Tensor:
    return theirs.combined.ssd_selective_scan(x, dt, A, B, C, **more)


def _listing(
    theirs: Theirs,
    chunk: int,
    *,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
) -> Tensor:
    """The listing has no D, groups, bias or softplus, and one precision only, so they are applied here."""
    dt = dt.float() if dt_bias is None else dt.float() + dt_bias
    dt = torch.nn.functional.softplus(dt) if dt_softplus else dt
    each = x.shape[2] // B.shape[2]
    B, C = (matrix.float().repeat_interleave(each, dim=2) for matrix in (B, C))
    out, _ = theirs.listing.ssd_minimal_discrete(x.float() * dt.unsqueeze(-1), A * dt, B, C, chunk)
    return (out if D is None else out + D[:, None] * x.float()).to(x.dtype)


def _same_mixer(tally: Tally, theirs: Theirs, case: Case) -> None:
    """Our mixer with the parameters of one of theirs, or of two that share z, x and the output projection."""
    dim, states, head_dim = case["width"], case["d_state"], case["head_dim"]
    make = {"d_state": states, "headdim": head_dim, "chunk_size": 16}
    forward, backward = (theirs.mixer.Mamba2Simple(dim, **make) for _ in range(2))
    shared = 2 * forward.d_inner
    for mixer in (forward, backward):
        for parameter in mixer.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    backward.in_proj.weight.data[:shared] = forward.in_proj.weight.data[:shared]
    backward.out_proj.load_state_dict(forward.out_proj.state_dict())
    ours = Mamba2(dim, 1, d_state=states, d_conv=4, expand=2, head_dim=head_dim, directions=case["directions"])
    state = forward.state_dict()
    if case["directions"] == "both":
        own = {
            _reversed_name(name): value for name, value in backward.state_dict().items() if name != "out_proj.weight"
        }
        own["in_proj_b.weight"] = own["in_proj_b.weight"][shared:]
        state |= own
    ours.load_state_dict(state)
    assert math.isclose(forward.norm.eps, NORM_EPS)

    tokens = torch.randn(2, case["seqlen"], dim)
    weight = torch.randn_like(tokens)
    leaf, their_leaf = tokens.clone().requires_grad_(), tokens.clone().requires_grad_()
    out, expected = ours(leaf), forward(their_leaf)
    if case["directions"] == "both":
        expected = (expected + backward(their_leaf.flip(1)).flip(1)) / 2
    for result in (out, expected):
        (result * weight).sum().backward()
    pairs = {"output": (out, expected), "gradient of the input": (leaf.grad, their_leaf.grad)}
    for name in ("A_log", "D", "dt_bias", "norm.weight", "conv1d.weight"):
        pairs[f"gradient of {name}"] = ours.get_parameter(name).grad, forward.get_parameter(name).grad
    if case["directions"] == "both":
        pairs["gradient of A_b_log"] = ours.get_parameter("A_b_log").grad, backward.A_log.grad
    tally.near(f"mixer {named(case)}", pairs, of_largest=2e-5, kind="mixer's")


def _reversed_name(name: str) -> str:
    """A_log -> A_b_log, conv1d.weight -> conv1d_b.weight, D -> D_b."""
    if name == "A_log":
        return "A_b_log"
    module, dot, rest = name.partition(".")
    return f"{module}_b{dot}{rest}"
