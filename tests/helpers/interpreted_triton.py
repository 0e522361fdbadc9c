"""Tests of the Triton kernels on CPU tensors in Triton's interpreter.

tests/ops/triton/test_triton.py runs them in a process of their own. Values and all gradients are compared with the
specification in float64.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ops import Direction, bimamba_fn, causal_conv1d_fn, selective_scan_fn
from ops.cpu import add_norm as cpu_add_norm
from ops.reference import add_norm, patches
from ops.triton import add_norm as sums
from ops.triton import backend as gpu
from ops.triton import block as blocks
from ops.triton import conv, host, scan, scan_operator
from ops.triton.bimamba import stack_weights
from tests.helpers.ops_cases import (
    ScanCase,
    assert_close,
    conv_tensors,
    exact,
    forward_backward,
    mixer_tensors,
    on_directions,
    reference_conv,
    reference_scan,
)
from tests.ops.cpu import test_block as block_cases

triton_scan = partial(selective_scan_fn, backend="triton")
triton_conv = partial(causal_conv1d_fn, backend="triton")
ROUNDED = 4e-2  # the interpreter truncates to bfloat16 where a GPU rounds
CASE = ScanCase(batch=1)


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch):
    """Small segments and blocks of channels, so that small sizes have several of them."""
    monkeypatch.setattr(host, "MIN_STEPS", 4)
    monkeypatch.setattr(scan, "FORWARD_CHANNELS", 32)
    monkeypatch.setattr(scan, "BACKWARD_CHANNELS", 32)


@pytest.mark.parametrize(
    "case",
    [
        CASE,
        replace(CASE, length=5, reverse=True, groups=2, dim=4, batch=2),
        replace(CASE, length=1),
        replace(CASE, length=2, dim=34, states=9, reverse=True),
        replace(CASE, length=5, D=False, z=False, bias=False, softplus=False),
        replace(CASE, length=4, delta_scale=30.0, A_scale=20.0),
        replace(CASE, batch=0),
    ],
    ids=str,
)
def test_scan(case: ScanCase):
    tensors, options = case.tensors(torch.float32), {"delta_softplus": case.softplus, "reverse": case.reverse}
    actual = forward_backward(triton_scan, tensors, **options, return_last_state=True)
    expected = forward_backward(reference_scan, exact(tensors), **options, return_last_state=True)
    assert_close(actual, expected, rtol=2e-6, dtype=False)
    assert actual["out"].transpose(1, 2).is_contiguous()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_scan_in_lower_precision(dtype: torch.dtype):
    tensors = replace(CASE, length=4).tensors(dtype)
    actual = forward_backward(triton_scan, tensors, delta_softplus=True)
    assert actual["out"].dtype == actual["du"].dtype == actual["dA"].dtype == dtype
    expected = forward_backward(reference_scan, exact(tensors), delta_softplus=True)
    assert_close(actual, expected, rtol=ROUNDED, dtype=False)


def test_replay_in_parts_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    tensors = replace(CASE, length=2, batch=2).tensors(torch.float32)
    at_once = forward_backward(triton_scan, tensors)
    monkeypatch.setattr(scan, "REPLAY_BYTES", 1)
    assert_close(forward_backward(triton_scan, tensors), at_once, rtol=0)


def amid_nan(x: Tensor) -> Tensor:
    """The same values as a view of memory that is NaN around them."""
    surrounded = torch.full([side + 2 for side in x.shape], torch.nan, dtype=x.dtype)
    inside = surrounded[tuple(slice(1, -1) for _ in x.shape)]
    return inside.copy_(x).detach().requires_grad_()


def test_no_memory_outside_the_arguments_is_read():
    """Blocks of channels, positions and states are larger than the arguments."""
    reverse = True
    tensors = replace(CASE, length=3, dim=5).tensors(torch.float32)
    expected = forward_backward(triton_scan, tensors, delta_softplus=True, reverse=reverse)
    sequences = {
        name: amid_nan(tensors[name].transpose(1, 2)).transpose(1, 2) for name in ("u", "delta", "B", "C", "z")
    }
    with torch.no_grad():
        out = triton_scan(**(tensors | sequences), delta_softplus=True, reverse=reverse)
    assert torch.equal(out, expected["out"])
    x, weight, bias = conv_tensors(5, 4, dim=7).values()
    beside = amid_nan(x.transpose(1, 2)).transpose(1, 2)
    of_x, of_beside = (
        forward_backward(triton_conv, {"x": leaf, "weight": weight, "bias": bias}, reverse=reverse)
        for leaf in (x, beside.detach().requires_grad_())
    )
    assert_close(of_beside, of_x, rtol=0)


@pytest.mark.parametrize(
    ("length", "width", "reverse", "silu"), [(20, 4, False, True), (1, 3, True, True), (5, 2, True, False)]
)
def test_convolution(length: int, width: int, reverse: bool, silu: bool):
    tensors, options = conv_tensors(length, width), {"activation": "silu" if silu else None, "reverse": reverse}
    expected = forward_backward(reference_conv, exact(tensors), **options)
    assert_close(forward_backward(triton_conv, tensors, **options), expected, rtol=1e-6, dtype=False)


def test_convolution_across_the_borders_of_programs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(conv, "WALK", (8,))
    tensors = conv_tensors(21, 4, dim=5)
    expected = forward_backward(reference_conv, exact(tensors), activation="silu")
    assert_close(
        forward_backward(triton_conv, tensors, activation="silu"), expected, rtol=1e-6, dtype=False
    )  # fmt: skip


@pytest.mark.parametrize(("has_residual", "rotated", "dropped"), [(1, 1, 1), (0, 0, 0), (1, 0, 1), (1, 1, 0)])
def test_sum_and_norm(has_residual: int, rotated: int, dropped: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sums, "cores", lambda device: 1)
    monkeypatch.setattr(sums, "PROGRAMS_PER_CORE", 3)  # programs share ten rows
    torch.manual_seed(0)
    tensors: dict[str, Any] = {
        "hidden": torch.randn(2, 5, 50).requires_grad_(),
        "residual": torch.randn(2, 5, 50).requires_grad_() if has_residual else None,
        "weight": torch.randn(50).requires_grad_(),
    }
    rotation = torch.polar(torch.ones(1, 5, 25), torch.randn(1, 5, 25)) if rotated else None
    scale = torch.tensor([0.0, 1.25]) if dropped else None

    def run(kernel: Any) -> Any:
        return lambda hidden, residual, weight: kernel(hidden, residual, rotation, weight, 1e-5, scale)

    expected = forward_backward(run(add_norm.add_norm), exact(tensors))
    assert_close(forward_backward(run(gpu.add_norm), tensors), expected, rtol=1e-6, dtype=False)


def test_patches():
    torch.manual_seed(0)
    volume = torch.randn(2, 4, 8, 8, 16)
    ids = torch.stack([torch.randperm(16)[:3] for _ in range(2)])
    for chosen in (ids, None):
        for first in (False, True):
            expected = patches.gather_patches(volume, chosen, 4, first)
            assert torch.equal(gpu.gather_patches(volume, chosen, 4, first), expected)
    for normalise in (False, True):
        tensors: dict[str, Any] = {"pred": torch.randn(2, 3, 256).requires_grad_()}

        def run(error: Any, volume: Tensor, normalise: bool = normalise) -> Any:
            return lambda pred: error(pred, volume, ids, 4, normalise)

        expected = forward_backward(run(patches.patch_error, volume.double()), exact(tensors))
        assert_close(forward_backward(run(gpu.patch_error, volume), tensors), expected, rtol=1e-6, dtype=False)


def test_mixer_under_torch_compile():
    def fused(xz: Tensor, forward: Direction, backward: Direction, out_weight: Tensor) -> Tensor:
        return bimamba_fn(xz, forward, backward, out_weight, backend="triton")

    tensors = {name: x.detach() for name, x in mixer_tensors(batch=1, length=2).items()}
    compiled = torch.compile(on_directions(fused), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(**tensors), on_directions(bimamba_fn)(**tensors, backend="reference"))


def fused_block(*, norm_weight: Tensor, scale: Tensor | None, in_weight: Tensor, out_weight: Tensor, hidden: Tensor,
                residual: Tensor | None, rotation: Tensor | None, **weights: Tensor) -> Any:  # fmt: skip
    both = block_cases.directions(weights)
    return gpu.bimamba_block(hidden, residual, rotation, norm_weight, 1e-5, scale, in_weight, *both, out_weight)


@pytest.mark.parametrize("options", [{"dropped": True}, {"residual": False, "rotated": False}], ids=str)
def test_block(options: dict[str, Any]):
    tensors = block_cases.case(length=3, inner=6, states=2, **options)
    expected = forward_backward(block_cases.plain, exact(tensors))
    assert_close(forward_backward(fused_block, tensors), expected, rtol=2e-5, dtype=False)


def test_block_under_autocast():
    tensors = block_cases.case(length=3, inner=6, states=2)
    tensors["hidden"] = tensors["hidden"].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = forward_backward(fused_block, tensors)
    assert actual["out"].dtype == torch.bfloat16
    assert actual["extra"].dtype == torch.float32
    expected = forward_backward(block_cases.plain, exact(tensors))
    assert_close(actual, expected, rtol=0.12, dtype=False)  # four truncations


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operators_keep_pytorchs_contract():
    u, delta, A, B, C, D, z, bias = replace(CASE, length=4).tensors(torch.float32).values()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(scan_operator.scan.default, (u, delta, A, B, C, D, z, bias, True, False), test_utils=checks)
    torch.library.opcheck(conv.convolve.default, (*conv_tensors(5, 4).values(), True, True), test_utils=checks)
    tensors = block_cases.case(length=3, inner=6, states=2)
    hidden, residual, rotation, norm_weight, scale, in_weight, *mixer, out_weight = tensors.values()
    weights = stack_weights(Direction(*mixer[:7]), Direction(*mixer[7:]), out_weight, torch.float32)
    arguments = hidden, residual, cpu_add_norm.cos_sin(rotation), norm_weight, scale, in_weight, *weights, 1e-5
    torch.library.opcheck(blocks.block.default, arguments, test_utils=checks)
