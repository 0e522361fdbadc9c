import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops import selective_scan_fn
from ops.cpu import build as cpu_build
from ops.cpu import library as cpu_library
from tests.helpers.ops_cases import (
    SCAN_CASES,
    ScanCase,
    assert_close,
    assert_repeats,
    exact,
    forward_backward,
    reference_scan,
    require_kernels,
    threads,
)

cpu_scan = functools.partial(selective_scan_fn, backend="cpu")


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def assert_scan(case: ScanCase, dtype: torch.dtype, rtol: float) -> None:
    tensors = case.tensors(dtype)
    options = {"delta_softplus": case.softplus, "reverse": case.reverse, "return_last_state": True}
    actual = forward_backward(cpu_scan, tensors, **options)
    for name, x in tensors.items():
        assert x is None or actual[f"d{name}"].dtype == dtype
    assert_close(actual, forward_backward(reference_scan, exact(tensors), **options), rtol, dtype=False)


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_scan_in_float32(case: ScanCase):
    assert_scan(case, torch.float32, rtol=5e-6)


@pytest.mark.parametrize("case", SCAN_CASES, ids=str)
def test_scan_in_bfloat16(case: ScanCase):
    assert_scan(case, torch.bfloat16, rtol=1e-2)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    case=st.builds(
        ScanCase,
        batch=st.integers(0, 3),
        dim=st.sampled_from([6, 18, 48, 66]),
        length=st.integers(1, 70),
        states=st.integers(1, 21),
        groups=st.sampled_from([0, 1, 2, 3]),
        D=st.booleans(),
        z=st.booleans(),
        bias=st.booleans(),
        softplus=st.booleans(),
        reverse=st.booleans(),
    )
)
def test_scan_of_any_shape(case: ScanCase):
    assert_scan(case, torch.float32, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_more_channels_than_a_panel_holds(count: int):
    with threads(count):
        assert_scan(ScanCase(batch=1, dim=1000, length=40, states=16), torch.float32, rtol=1e-5)
        assert_scan(ScanCase(batch=2, dim=996, length=20, states=5, groups=2, reverse=True), torch.float32, rtol=1e-5)


def test_a_long_sequence_in_both_directions():
    tensors = ScanCase(batch=1, dim=16, length=5001, states=16).tensors(torch.float32)
    flipped = {k: x.detach().flip(-1).requires_grad_() if x.dim() == 3 else x for k, x in tensors.items()}
    there = forward_backward(cpu_scan, tensors, delta_softplus=True, reverse=True)["out"]
    torch.testing.assert_close(there, cpu_scan(**flipped, delta_softplus=True).flip(-1))
    torch.testing.assert_close(there, reference_scan(**tensors, delta_softplus=True, reverse=True))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_results_are_bit_identical(count: int):
    with threads(count):
        tensors = ScanCase(batch=2, dim=80, length=50, states=16).tensors(torch.float32)
        assert_repeats(cpu_scan, tensors, times=100, delta_softplus=True)


def test_mixed_precision_keeps_a_float32_step_size():
    tensors = ScanCase(length=70, dim=20).tensors(torch.float32)
    tensors |= {name: tensors[name].detach().bfloat16().requires_grad_() for name in ("u", "B", "C")}
    actual = forward_backward(cpu_scan, tensors, delta_softplus=True)
    assert actual["out"].dtype == torch.bfloat16
    assert actual["ddelta"].dtype == torch.float32
    expected = forward_backward(reference_scan, exact(tensors), delta_softplus=True)
    assert_close(actual, expected, rtol=1e-2, dtype=False)


def test_the_portable_code_without_wide_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu_build, "_instruction_sets", lambda: [[]])
    narrow = cpu_library._load()
    monkeypatch.setattr(cpu_library, "library", lambda: narrow)
    assert narrow.scan_register_width() == 4  # the width that every x86-64 and ARM64 processor has
    assert_scan(ScanCase(dim=10, length=40, states=18, groups=2, reverse=True), torch.float32, rtol=1e-5)
    assert_scan(ScanCase(dim=10, length=40, delta_scale=30.0, A_scale=20.0), torch.bfloat16, rtol=1e-2)


def test_large_steps_stay_finite_and_nan_is_not_hidden():
    case = ScanCase(length=50, dim=4, states=4, delta_scale=1e4, A_scale=1e4)
    results = forward_backward(cpu_scan, case.tensors(torch.float32), delta_softplus=True)
    assert all(torch.isfinite(x).all() for x in results.values())
    tensors = {k: x.detach().bfloat16() for k, x in ScanCase().tensors().items()}
    tensors["u"][0, 2, 4] = torch.nan
    out = cpu_scan(**tensors, delta_softplus=True)
    assert out[0, 2, 4:].isnan().all()
    assert out.isnan().sum() == 5


def test_memory_is_channel_last_and_strides_do_not_matter():
    tensors = ScanCase(dim=8, length=40).tensors(torch.float32)
    results = forward_backward(cpu_scan, tensors, delta_softplus=True)
    for name in ("out", "du", "ddelta", "dz"):
        assert results[name].transpose(1, 2).is_contiguous(), name
    contiguous = {k: x.detach().contiguous() for k, x in tensors.items()}
    assert torch.equal(cpu_scan(**contiguous, delta_softplus=True), results["out"])
    projected = torch.randn(2, 40, 30)
    views = dict(contiguous, B=projected[..., 5:8].transpose(1, 2), C=projected[..., 8:11].transpose(1, 2))
    expected = reference_scan(**views, delta_softplus=True)
    torch.testing.assert_close(cpu_scan(**views, delta_softplus=True), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize(
    "case", [ScanCase(batch=1, dim=5, length=18), ScanCase(D=False, z=False, bias=False, groups=2)], ids=str
)
def test_operators_keep_pytorchs_contract(case: ScanCase):
    tensors = tuple(case.tensors(torch.float32).values())
    torch.library.opcheck(torch.ops.mamba_mae.scan.default, (*tensors, True, False, True))


def test_second_derivatives_are_refused():
    tensors = ScanCase().tensors(torch.float32)
    out = cpu_scan(**tensors, delta_softplus=True)
    (du,) = torch.autograd.grad((out**2).sum(), tensors["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        du.sum().backward()


def test_under_torch_compile():
    tensors = ScanCase(length=20).tensors(torch.float32)

    def step(**tensors: Any) -> Tensor:
        return cpu_scan(**tensors, delta_softplus=True) * 2

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert_close(forward_backward(compiled, tensors), forward_backward(step, tensors), rtol=1e-6)


def test_autocast_and_checkpointing():
    tensors = ScanCase(length=40).tensors(torch.float32)
    scan = functools.partial(cpu_scan, delta_softplus=True)
    plain = forward_backward(scan, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward_backward(scan, tensors), plain, rtol=1e-7)
    saved = forward_backward(lambda **t: checkpoint(scan, *t.values(), use_reentrant=False), tensors)
    assert_close(saved, plain, rtol=1e-7)


def test_a_long_slow_decay_is_as_fast_as_in_float64():
    """1,000 steps of about exp(-0.01). Rounding makes some channels' rates too large and others too small.

    An exponential whose error has one sign would make all of them too large. Comparing single steps does not show that.
    """
    torch.manual_seed(0)
    channels, steps = 64, 1000
    u = torch.zeros(1, channels, steps)
    u[..., 0] = 1
    delta, A = torch.full((1, channels, steps), 0.01), -torch.rand(channels, 16) - 0.1
    ones = torch.ones(1, 16, steps)
    _, state = cpu_scan(u, delta, A, ones, ones, return_last_state=True)
    _, true = reference_scan(*(x.double() for x in (u, delta, A, ones, ones)), return_last_state=True)
    excess = 1 - (state / delta[..., :1].double()).log() / (true / delta[..., :1].double()).log()
    assert abs(excess.mean()) < 2e-6
