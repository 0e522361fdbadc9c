import logging
import subprocess
import sys
from typing import Any

import pytest
import torch

from ops import available_backends, causal_conv1d_fn, dispatch, selective_scan_fn, ssd_scan_fn
from ops.cpu import library as cpu_library
from tests.helpers.ops_cases import ScanCase
from tests.helpers.ssd_cases import SSDCase


@pytest.fixture(autouse=True)
def _forget_what_was_logged():
    dispatch._log.cache_clear()
    dispatch._warn_of_triton.cache_clear()


def test_names():
    assert available_backends()[:2] == ["reference", "chunked"]
    assert ("cuda" in available_backends()) <= torch.cuda.is_available()


def test_backends_agree_and_auto_is_one_of_them():
    tensors = ScanCase(length=70).tensors(torch.float32)
    names: list[Any] = ["auto", *available_backends()]
    outs = [selective_scan_fn(**tensors, delta_softplus=True, backend=name) for name in names]
    x, weight = tensors["u"], torch.randn(6, 4)
    convs = [causal_conv1d_fn(x, weight, activation="silu", backend=name) for name in names]
    for same in (outs, convs):
        for out in same[1:]:
            torch.testing.assert_close(out, same[0], rtol=1e-4, atol=1e-5)


def test_backends_of_the_mamba2_scan_agree():
    tensors = SSDCase(length=70, groups=2).tensors(torch.float32)
    names: list[Any] = ["auto", *available_backends()]
    outs = [ssd_scan_fn(**tensors, dt_softplus=True, backend=name) for name in names]
    for out in outs[1:]:
        torch.testing.assert_close(out, outs[0], rtol=1e-4, atol=1e-5)
    backward = [ssd_scan_fn(**tensors, dt_softplus=True, reverse=True, backend=name) for name in names]
    assert (backward[0] - outs[0]).abs().max() > 0.1
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        ssd_scan_fn(**tensors, backend="cuda")
    with pytest.raises(ValueError, match="known are"):
        ssd_scan_fn(**tensors, backend="fast")  # pyright: ignore


def test_positional_arguments_are_those_of_the_packages():
    t = ScanCase(D=False).tensors()
    u, delta, A, B, C, D, z, bias = t.values()
    out, last = selective_scan_fn(u, delta, A, B, C, D, z, bias, True, True)
    assert out.shape == t["u"].shape
    assert last.shape == (2, 6, 3)
    assert not last.requires_grad
    seq_idx = torch.zeros(2, 9, dtype=torch.int32)
    weight, bias = torch.randn(6, 4).double(), torch.randn(6).double()
    out = causal_conv1d_fn(t["u"], weight, bias, seq_idx, None, False, None, "silu")
    assert out.shape == t["u"].shape


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match=r'unknown backend "cud".*auto, reference, chunked, cpu, triton, cuda'):
        selective_scan_fn(**ScanCase().tensors(), backend="cud")  # pyright: ignore
    with pytest.raises(ValueError, match="known are"):
        causal_conv1d_fn(torch.zeros(1, 2, 3), torch.zeros(2, 4), backend="fast")  # pyright: ignore


def test_an_asked_backend_that_cannot_run_raises():
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        selective_scan_fn(**ScanCase().tensors(torch.float32), backend="cuda")
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        causal_conv1d_fn(torch.zeros(1, 2, 3), torch.zeros(2, 4), backend="cuda")


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.dispatch")
    tensors = ScanCase().tensors()
    for _ in range(3):
        selective_scan_fn(**tensors)
    (line,) = [r.getMessage() for r in caplog.records]
    assert line.startswith("selective scan on cpu: backend chunked (")
    assert "float64" in line


def test_without_a_compiler_auto_is_chunked_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(cpu_library, "problem", lambda: "no C++ compiler found")
    tensors = ScanCase().tensors(torch.float32)
    outs = [selective_scan_fn(**tensors, delta_softplus=True) for _ in range(2)]
    assert [(r.levelname, "no C++ compiler" in r.getMessage()) for r in caplog.records] == [("WARNING", True)]
    torch.testing.assert_close(outs[0], selective_scan_fn(**tensors, delta_softplus=True, backend="reference"))
    with pytest.raises(ValueError, match="no C\\+\\+ compiler"):
        selective_scan_fn(**tensors, backend="cpu")


def test_other_devices_take_the_plain_path(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.dispatch")

    class OnMps:
        device = torch.device("mps")

    assert dispatch._choose("scan", {"chunked": "slow"}, "auto", OnMps(), {}) == "slow"  # pyright: ignore
    assert "no fused kernel for mps" in caplog.text


def test_small_floats_on_a_cpu_go_to_the_compiled_kernels(caplog: pytest.LogCaptureFixture):
    if problem := cpu_library.problem():
        pytest.skip(problem)
    caplog.set_level(logging.INFO, logger="ops.dispatch")
    for dtype in (torch.float32, torch.bfloat16):
        causal_conv1d_fn(torch.zeros(1, 2, 3, dtype=dtype), torch.zeros(2, 4))
    causal_conv1d_fn(torch.zeros(1, 2, 3, dtype=torch.float16), torch.zeros(2, 4))
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0] == "causal convolution on cpu: backend cpu"
    assert "backend chunked" in lines[1]
    assert len(lines) == 2


def test_an_asked_backend_is_not_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.dispatch")
    selective_scan_fn(**ScanCase().tensors(), backend="reference")
    assert not caplog.records


def test_importing_ops_imports_no_kernel_and_prints_nothing():
    heavy = {"mamba_ssm", "causal_conv1d", "torch.utils.cpp_extension"}
    code = f"import sys, ops; bad = {heavy} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_auto_on_a_gpu_uses_the_first_kernel_that_can(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    class OnCuda:
        device = torch.device("cuda:0")

    table = {"chunked": "slow", "triton": "ours", "cuda": "theirs"}

    def chosen(ours: str | None, theirs: str | None, operation: str = "selective scan") -> Any:
        obstacles = {"triton": lambda: ours, "cuda": lambda: theirs}
        return dispatch._choose(operation, table, "auto", OnCuda(), obstacles)  # pyright: ignore

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

    monkeypatch.delenv("MAMBA_MAE_TRITON", raising=False)
    assert chosen(None, None) == "theirs"
    assert not warnings()
    assert chosen(None, "no package") == "slow"  # not before a GPU has run them, unless asked for
    (unasked,) = warnings()
    assert "MAMBA_MAE_TRITON=1 tries them" in unasked
    monkeypatch.setenv("MAMBA_MAE_TRITON", "1")
    assert chosen(None, "no package") == chosen(None, "no package", "causal convolution") == "ours"
    (_, unverified) = warnings()
    assert "not yet on a GPU" in unverified
    assert chosen("too old", "no package", "causal convolution") == "slow"
    assert chosen("too old", "no package") == "slow"
    (*_, slow) = warnings()
    assert "no package; too old" in slow
    assert "no faster than on a CPU" in slow
