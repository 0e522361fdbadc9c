import inspect
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from ops import bimamba_fn, causal_conv1d_fn, dispatch, selective_scan_fn
from ops.cuda import backend as cuda
from ops.reference.bimamba import side_by_side
from tests.helpers.ops_cases import (
    ScanCase,
    assert_close,
    forward_backward,
    mixer_tensors,
    on_directions,
    reference_conv,
    reference_scan,
)

cuda_scan = partial(selective_scan_fn, backend="cuda")
cuda_conv = partial(causal_conv1d_fn, backend="cuda")


def scan_signature(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    """mamba_ssm's documented signature, computed by the specification."""
    return reference_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def conv_signature(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
                   final_states_out=None, activation=None):  # fmt: skip
    """causal_conv1d's documented signature, computed by the specification."""
    return reference_conv(x, weight, bias, seq_idx, initial_states, return_final_states, final_states_out, activation)


@pytest.fixture
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend accepts CPU tensors."""
    monkeypatch.setattr(cuda, "unavailable", lambda *a, **k: None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Stand-ins for both packages that record the arguments of every call by name."""
    recorded: list[dict[str, Any]] = []

    def recording(function):
        def stand_in(*args, **kwargs):
            bound = inspect.signature(function).bind(*args, **kwargs)
            recorded.append(dict(bound.arguments))
            return function(*args, **kwargs)

        return stand_in

    for name in ("mamba_ssm", "mamba_ssm.ops", cuda.SCAN_MODULE, cuda.CONV_MODULE, *cuda.EXTENSIONS.values()):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[cuda.SCAN_MODULE].selective_scan_fn = recording(scan_signature)  # pyright: ignore
    sys.modules[cuda.CONV_MODULE].causal_conv1d_fn = recording(conv_signature)  # pyright: ignore
    cuda.import_problem.cache_clear()
    yield recorded
    cuda.import_problem.cache_clear()


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize(
    "case", [ScanCase(), ScanCase(reverse=True, groups=2), ScanCase(constant_B=True, reverse=True)], ids=str
)
def test_scan_through_the_stand_in_is_the_scan(calls: list, case: ScanCase):
    tensors = case.tensors(torch.float32)
    options = {"reverse": case.reverse, "delta_softplus": True, "return_last_state": True}
    actual = forward_backward(cuda_scan, tensors, **options)
    assert_close(actual, forward_backward(reference_scan, tensors, **options), rtol=1e-6)
    assert len(calls) == 1
    assert calls[0]["delta_softplus"] is True
    assert calls[0]["return_last_state"] is True


@pytest.mark.usefixtures("any_device")
def test_scan_arguments_have_the_types_the_kernel_takes(calls: list):
    tensors = ScanCase(constant_C=True).tensors(torch.float32)
    tensors |= {name: tensors[name].to(torch.bfloat16) for name in ("u", "C", "D")}
    cuda_scan(**tensors)
    half = {name for name, x in calls[0].items() if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16}
    assert half == {"u", "delta", "B", "z"}


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_conv_through_the_stand_in_is_the_convolution(calls: list, states: bool, reverse: bool):
    x = torch.randn(2, 9, 5).transpose(1, 2).requires_grad_()
    tensors = {"x": x, "weight": torch.randn(5, 4).requires_grad_(), "bias": torch.randn(5).requires_grad_()}
    if states:
        tensors["initial_states"] = torch.randn(2, 5, 3).requires_grad_()
    options = {"activation": "silu", "reverse": reverse, "return_final_states": states}
    actual = forward_backward(cuda_conv, tensors, **options)
    assert_close(actual, forward_backward(reference_conv, tensors, **options), rtol=1e-6)
    assert calls[0]["activation"] == "silu"


@pytest.mark.usefixtures("any_device")
def test_conv_layouts_the_kernel_takes(calls: list):
    weight = torch.randn(5, 4)
    odd = torch.randn(2, 9, 5).transpose(1, 2)
    cuda_conv(odd, weight)
    assert calls[-1]["x"].is_contiguous()  # channel-last strides that are no multiples of 8
    cuda_conv(odd.contiguous(), weight, seq_idx=torch.zeros(2, 9, dtype=torch.int64))
    assert calls[-1]["x"].transpose(1, 2).is_contiguous()
    assert calls[-1]["seq_idx"].dtype == torch.int32


@pytest.mark.usefixtures("any_device")
def test_both_directions_of_a_mixer_share_one_call(calls: list, monkeypatch: pytest.MonkeyPatch):
    tensors = mixer_tensors(batch=2, length=9, inner=6, states=3)
    expected = forward_backward(on_directions(bimamba_fn), tensors, backend="reference")
    monkeypatch.setattr(dispatch.cpu, "unavailable", lambda x: "on CUDA")
    assert_close(forward_backward(on_directions(bimamba_fn), tensors, backend="auto"), expected, rtol=1e-5)
    conv, scan = calls
    assert conv["x"].shape == (2, 12, 9)
    assert scan["u"].shape == scan["delta"].shape == scan["z"].shape == (2, 12, 9)
    assert scan["B"].shape == scan["C"].shape == (2, 2, 3, 9)
    assert scan["A"].shape == (12, 3)
    assert scan["delta_bias"].shape == scan["D"].shape == (12,)
    for name in ("u", "delta", "z", "B", "C"):
        assert scan[name].stride(-1) == 1, name  # the kernel reads along time


def test_a_mixer_keeps_the_types_the_kernels_take(calls: list):
    tensors = mixer_tensors()
    tensors["xz"] = tensors["xz"].detach().bfloat16().requires_grad_()
    kernels = cuda.selective_scan, cuda.causal_conv1d
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = on_directions(lambda *a: side_by_side(*kernels, *a))(**tensors)
    assert out.dtype == torch.bfloat16
    conv, scan = calls
    assert conv["x"].dtype == torch.bfloat16
    assert conv["weight"].dtype == conv["bias"].dtype  # any precision: the kernel only requires that they are the same
    assert {scan[name].dtype for name in ("u", "delta", "B", "C", "z")} == {torch.bfloat16}
    assert {scan[name].dtype for name in ("A", "D", "delta_bias")} == {torch.float32}


@pytest.mark.usefixtures("any_device")
def test_a_missing_package_names_the_install_command(monkeypatch: pytest.MonkeyPatch):
    cuda.import_problem.cache_clear()
    monkeypatch.setitem(sys.modules, cuda.SCAN_MODULE, None)
    monkeypatch.setitem(sys.modules, cuda.CONV_MODULE, None)
    with pytest.raises(ValueError, match=r"mamba_ssm.*pip install --no-build-isolation -r requirements-cuda\.txt"):
        cuda_scan(**ScanCase().tensors(torch.float32))
    with pytest.raises(ValueError, match=r"causal_conv1d.*requirements-cuda\.txt"):
        cuda_conv(torch.zeros(1, 2, 3), torch.zeros(2, 4))
    cuda.import_problem.cache_clear()


@pytest.mark.parametrize("error", [ImportError("no selective_scan_cuda"), RuntimeError("built for another torch")])
def test_a_package_without_its_extension_is_missing(error: Exception, calls: list, monkeypatch: pytest.MonkeyPatch):
    import_module = cuda.importlib.import_module

    def without(name: str) -> Any:
        if name == "selective_scan_cuda":
            raise error
        return import_module(name)

    monkeypatch.setattr(cuda.importlib, "import_module", without)
    assert str(error) in str(cuda.import_problem(cuda.SCAN_MODULE))
    assert cuda.import_problem(cuda.CONV_MODULE) is None


def test_what_the_kernels_cannot_take():
    class OnCuda:
        is_cuda = True
        device = "cuda:0"
        dtype = torch.float64

    assert "takes CUDA tensors" in str(cuda.unavailable(cuda.SCAN_MODULE, torch.zeros(1)))
    assert "float64" in str(cuda.unavailable(cuda.SCAN_MODULE, OnCuda()))  # pyright: ignore
    OnCuda.dtype = torch.float32
    assert "width" in str(cuda.unavailable(cuda.CONV_MODULE, OnCuda(), width=7))  # pyright: ignore


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_parity_of_a_mixer_on_a_gpu():
    for module in (cuda.SCAN_MODULE, cuda.CONV_MODULE):
        if problem := cuda.import_problem(module):
            pytest.skip(f"{module} cannot be imported: {problem}")
    host = mixer_tensors(length=70, inner=16, states=16)
    device = {name: x.detach().cuda().requires_grad_() for name, x in host.items()}
    actual = forward_backward(on_directions(bimamba_fn), device, backend="cuda")
    expected = forward_backward(on_directions(bimamba_fn), host, backend="reference")
    assert_close({name: x.cpu() for name, x in actual.items()}, expected, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("case", [ScanCase(length=70, dim=16, states=16, reverse=r) for r in (False, True)])
def test_parity_on_a_gpu(case: ScanCase):
    if problem := cuda.import_problem(cuda.SCAN_MODULE):
        pytest.skip(f"mamba_ssm cannot be imported: {problem}")
    host = case.tensors(torch.float32)
    device = {name: x.detach().cuda().requires_grad_() for name, x in host.items()}
    options = {"delta_softplus": True, "reverse": case.reverse}
    expected = forward_backward(reference_scan, host, **options)
    actual = forward_backward(cuda_scan, device, **options)
    assert_close({name: x.cpu() for name, x in actual.items()}, expected, rtol=1e-4)
