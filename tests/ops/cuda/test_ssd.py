import inspect
import sys
import types
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from ops import ssd_scan_fn
from ops.cuda import backend as cuda
from ops.cuda import ssd as cuda_ssd
from tests.helpers.ops_cases import assert_close, forward_backward
from tests.helpers.ssd_cases import SSDCase

reference_scan = partial(ssd_scan_fn, backend="reference")
cuda_scan = partial(ssd_scan_fn, backend="cuda")


def signature(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
              cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False,
              return_varlen_states=False):  # fmt: skip
    """mamba_ssm's documented signature, computed by the specification."""
    return reference_scan(x, dt, A, B, C, D, dt_bias, dt_softplus)


@pytest.fixture
def any_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend accepts CPU tensors."""
    monkeypatch.setattr(cuda_ssd, "unavailable", lambda *a: None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """A stand-in for the package that records the arguments of every call by name."""
    recorded: list[dict[str, Any]] = []

    def stand_in(*args, **kwargs):
        recorded.append(dict(inspect.signature(signature).bind(*args, **kwargs).arguments))
        return signature(*args, **kwargs)

    for name in ("mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", cuda_ssd.MODULE):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[cuda_ssd.MODULE].mamba_chunk_scan_combined = stand_in  # pyright: ignore
    cuda.import_problem.cache_clear()
    yield recorded
    cuda.import_problem.cache_clear()


@pytest.mark.usefixtures("any_device")
@pytest.mark.parametrize("case", [SSDCase(), SSDCase(reverse=True, groups=2), SSDCase(D=False, bias=False)], ids=str)
def test_scan_through_the_stand_in_is_the_scan(calls: list, case: SSDCase):
    tensors = case.tensors(torch.float32)
    actual = forward_backward(cuda_scan, tensors, **case.options)
    assert_close(actual, forward_backward(reference_scan, tensors, **case.options), rtol=1e-6)
    assert len(calls) == 1
    assert (calls[0]["dt_softplus"], calls[0]["chunk_size"]) == (True, 256)


@pytest.mark.usefixtures("any_device")
def test_arguments_have_the_types_the_kernel_takes(calls: list):
    tensors = SSDCase().tensors(torch.float32)
    tensors |= {name: tensors[name].to(torch.bfloat16) for name in ("x", "dt", "A", "D", "dt_bias")}
    cuda_scan(**tensors)
    half = {name for name, t in calls[0].items() if isinstance(t, torch.Tensor) and t.dtype == torch.bfloat16}
    assert half == {"x", "dt", "B", "C"}


@pytest.mark.usefixtures("any_device")
def test_a_missing_package_names_the_install_command(monkeypatch: pytest.MonkeyPatch):
    cuda.import_problem.cache_clear()
    monkeypatch.setitem(sys.modules, cuda_ssd.MODULE, None)
    with pytest.raises(ValueError, match=r"mamba_ssm.*pip install --no-build-isolation -r requirements-cuda\.txt"):
        cuda_scan(**SSDCase().tensors(torch.float32))
    cuda.import_problem.cache_clear()


def test_tensors_beyond_32_bit_offsets_are_refused(monkeypatch: pytest.MonkeyPatch):
    def obstacle(batch: int, length: int, columns: int = 1024) -> str | None:
        wide = torch.empty(batch, length, columns, device="meta")
        x, B = wide[..., :1024].unflatten(-1, (16, 64)), torch.empty(batch, length, 1, 128, device="meta")
        return cuda_ssd.unavailable(x, B)

    assert "takes CUDA tensors" in str(obstacle(1, 9))
    monkeypatch.setattr(cuda, "unavailable", lambda *a: None)
    assert obstacle(8, 64_000) is None
    assert "smaller batch" in str(obstacle(40, 64_000))  # more elements than 2^31
    assert "smaller batch" in str(obstacle(8, 64_000, columns=8192))  # strides of a wide projection
    assert "smaller batch" in str(obstacle(40_000, 1))  # states of many short sequences


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("reverse", [False, True])
def test_parity_on_a_gpu(reverse: bool):
    if problem := cuda.import_problem(cuda_ssd.MODULE):
        pytest.skip(f"mamba_ssm cannot be imported: {problem}")
    case = SSDCase(length=300, heads=4, headdim=64, states=64, reverse=reverse)
    host = case.tensors(torch.float32)
    device = {name: t.detach().cuda().requires_grad_() for name, t in host.items()}
    actual = forward_backward(cuda_scan, device, **case.options)
    expected = forward_backward(reference_scan, host, **case.options)
    assert_close({name: t.cpu() for name, t in actual.items()}, expected, rtol=5e-3)  # its products are in tf32
