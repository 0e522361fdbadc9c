import functools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ops import cpu, cpu_build, cpu_library, reference
from tests.ops_cases import SCAN_CASES, ScanCase, assert_close, forward_backward

pytestmark = pytest.mark.usefixtures("_kernels")


@pytest.fixture(scope="module")
def _kernels():
    problem = cpu_library.problem()
    if problem and "no C++ compiler found" in problem:
        pytest.skip(problem)
    assert problem is None, problem


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def exact(tensors: dict) -> dict:
    return {name: x if x is None else x.detach().double().requires_grad_() for name, x in tensors.items()}


def assert_scan(case: ScanCase, dtype: torch.dtype, rtol: float) -> None:
    tensors = case.tensors(dtype)
    options = {"delta_softplus": case.softplus, "reverse": case.reverse, "return_last_state": True}
    actual = forward_backward(cpu.selective_scan, tensors, **options)
    for name, x in tensors.items():
        assert x is None or actual[f"d{name}"].dtype == dtype
    assert_close(actual, forward_backward(reference.selective_scan, exact(tensors), **options), rtol, dtype=False)


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


def test_more_channels_than_a_panel_holds(threads: int):
    assert_scan(ScanCase(batch=1, dim=1000, length=40, states=16), torch.float32, rtol=1e-5)
    assert_scan(ScanCase(batch=2, dim=996, length=20, states=5, groups=2, reverse=True), torch.float32, rtol=1e-5)


def test_a_long_sequence_in_both_directions():
    tensors = ScanCase(batch=1, dim=16, length=5001, states=16).tensors(torch.float32)
    flipped = {k: x.detach().flip(-1).requires_grad_() if x.dim() == 3 else x for k, x in tensors.items()}
    there = forward_backward(cpu.selective_scan, tensors, delta_softplus=True, reverse=True)["out"]
    torch.testing.assert_close(there, cpu.selective_scan(**flipped, delta_softplus=True).flip(-1))
    torch.testing.assert_close(there, reference.selective_scan(**tensors, delta_softplus=True, reverse=True))


def test_results_are_bit_identical(threads: int):
    tensors = ScanCase(batch=2, dim=80, length=50, states=16).tensors(torch.float32)
    first = forward_backward(cpu.selective_scan, tensors, delta_softplus=True)
    for _ in range(100):
        again = forward_backward(cpu.selective_scan, tensors, delta_softplus=True)
        assert all(torch.equal(first[name], again[name]) for name in first)


def test_mixed_precision_keeps_a_float32_step_size():
    tensors = ScanCase(length=70, dim=20).tensors(torch.float32)
    tensors |= {name: tensors[name].detach().bfloat16().requires_grad_() for name in ("u", "B", "C")}
    actual = forward_backward(cpu.selective_scan, tensors, delta_softplus=True)
    assert actual["out"].dtype == torch.bfloat16
    assert actual["ddelta"].dtype == torch.float32
    expected = forward_backward(reference.selective_scan, exact(tensors), delta_softplus=True)
    assert_close(actual, expected, rtol=1e-2, dtype=False)


def test_the_portable_code_without_wide_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu_build, "_instruction_sets", lambda: [[]])
    narrow = cpu_library._load()
    monkeypatch.setattr(cpu_library, "library", lambda: narrow)
    assert narrow.scan_register_width() == 4  # what every x86-64 and ARM64 has
    assert_scan(ScanCase(dim=10, length=40, states=18, groups=2, reverse=True), torch.float32, rtol=1e-5)
    assert_scan(ScanCase(dim=10, length=40, delta_scale=30.0, A_scale=20.0), torch.bfloat16, rtol=1e-2)
    tensors = conv_tensors(50, 4)
    expected = forward_backward(reference.causal_conv1d, exact(tensors), activation="silu")
    assert_close(forward_backward(cpu.causal_conv1d, tensors, activation="silu"), expected, rtol=5e-6, dtype=False)


def test_large_steps_stay_finite_and_nan_is_not_hidden():
    case = ScanCase(length=50, dim=4, states=4, delta_scale=1e4, A_scale=1e4)
    results = forward_backward(cpu.selective_scan, case.tensors(torch.float32), delta_softplus=True)
    assert all(torch.isfinite(x).all() for x in results.values())
    tensors = {k: x.detach().bfloat16() for k, x in ScanCase().tensors().items()}
    tensors["u"][0, 2, 4] = torch.nan
    out = cpu.selective_scan(**tensors, delta_softplus=True)
    assert out[0, 2, 4:].isnan().all()
    assert out.isnan().sum() == 5


def conv_tensors(length: int, width: int, dim: int = 37, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, length, dim, generator=generator).to(dtype).transpose(1, 2)
    weight, bias = torch.randn(dim, width, generator=generator), torch.randn(dim, generator=generator)
    return {"x": x.requires_grad_(), "weight": weight.requires_grad_(), "bias": bias.requires_grad_()}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("length", [1, 3, 33, 100])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 20])
def test_conv_in_float32(width: int, length: int, activation: str | None, reverse: bool):
    tensors, options = conv_tensors(length, width), {"activation": activation, "reverse": reverse}
    expected = forward_backward(reference.causal_conv1d, exact(tensors), **options)
    assert_close(forward_backward(cpu.causal_conv1d, tensors, **options), expected, rtol=5e-6, dtype=False)


def test_conv_in_bfloat16(threads: int):
    tensors = conv_tensors(100, 4, dim=64, dtype=torch.bfloat16)
    expected = forward_backward(reference.causal_conv1d, exact(tensors), activation="silu")
    assert_close(forward_backward(cpu.causal_conv1d, tensors, activation="silu"), expected, rtol=1e-2, dtype=False)


def test_conv_hands_states_and_packed_sequences_over():
    tensors = conv_tensors(9, 4)
    out, final = cpu.causal_conv1d(**tensors, return_final_states=True)
    torch.testing.assert_close(final, tensors["x"][..., -3:])
    packed = cpu.causal_conv1d(**tensors, seq_idx=torch.arange(18).reshape(2, 9) // 3)
    assert not torch.allclose(out, packed)


def test_memory_is_channel_last_and_strides_do_not_matter():
    tensors = ScanCase(dim=8, length=40).tensors(torch.float32)
    results = forward_backward(cpu.selective_scan, tensors, delta_softplus=True)
    for name in ("out", "du", "ddelta", "dz"):
        assert results[name].transpose(1, 2).is_contiguous(), name
    contiguous = {k: x.detach().contiguous() for k, x in tensors.items()}
    assert torch.equal(cpu.selective_scan(**contiguous, delta_softplus=True), results["out"])
    projected = torch.randn(2, 40, 30)
    views = dict(contiguous, B=projected[..., 5:8].transpose(1, 2), C=projected[..., 8:11].transpose(1, 2))
    expected = reference.selective_scan(**views, delta_softplus=True)
    torch.testing.assert_close(cpu.selective_scan(**views, delta_softplus=True), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize(
    "case", [ScanCase(batch=1, dim=5, length=18), ScanCase(D=False, z=False, bias=False, groups=2)], ids=str
)
def test_operators_keep_pytorchs_contract(case: ScanCase):
    tensors = tuple(case.tensors(torch.float32).values())
    torch.library.opcheck(torch.ops.mamba_mae.scan.default, (*tensors, True, False, True))
    x, weight, bias = conv_tensors(9, 4).values()
    torch.library.opcheck(torch.ops.mamba_mae.conv.default, (x, weight, bias, True, True))
    torch.library.opcheck(torch.ops.mamba_mae.conv.default, (x, weight, None, False, False))


def test_second_derivatives_are_refused():
    tensors = ScanCase().tensors(torch.float32)
    out = cpu.selective_scan(**tensors, delta_softplus=True)
    (du,) = torch.autograd.grad((out**2).sum(), tensors["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        du.sum().backward()
    tensors = conv_tensors(9, 4)
    (dx,) = torch.autograd.grad((cpu.causal_conv1d(**tensors) ** 2).sum(), tensors["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        dx.sum().backward()


def test_under_torch_compile():
    tensors = ScanCase(length=20).tensors(torch.float32)

    def step(**tensors: Tensor) -> Tensor:
        return cpu.selective_scan(**tensors, delta_softplus=True) * 2

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert_close(forward_backward(compiled, tensors), forward_backward(step, tensors), rtol=1e-6)


def test_autocast_and_checkpointing():
    tensors = ScanCase(length=40).tensors(torch.float32)
    scan = functools.partial(cpu.selective_scan, delta_softplus=True)
    plain = forward_backward(scan, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward_backward(scan, tensors), plain, rtol=1e-7)
    saved = forward_backward(lambda **t: checkpoint(scan, *t.values(), use_reentrant=False), tensors)
    assert_close(saved, plain, rtol=1e-7)
