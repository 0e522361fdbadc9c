import logging
from typing import Any

import pytest
import torch

from ops import available_backends, backends, causal_conv1d_fn, selective_scan_fn
from ops.cpu import library as cpu_library
from tests.helpers.ops_cases import ScanCase


@pytest.fixture(autouse=True)
def _clear_the_log_caches():
    backends._log.cache_clear()
    backends._warn_of_triton.cache_clear()


def test_names():
    assert available_backends()[:2] == ["reference", "chunked"]
    assert ("cuda" in available_backends()) <= torch.cuda.is_available()


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(ValueError, match=r'unknown backend "cud".*auto, reference, chunked, cpu, triton, cuda'):
        selective_scan_fn(**ScanCase().tensors(), backend="cud")  # pyright: ignore
    with pytest.raises(ValueError, match="known are"):
        causal_conv1d_fn(torch.zeros(1, 2, 3), torch.zeros(2, 4), backend="fast")  # pyright: ignore


def test_a_requested_backend_that_cannot_run_raises():
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        selective_scan_fn(**ScanCase().tensors(torch.float32), backend="cuda")
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        causal_conv1d_fn(torch.zeros(1, 2, 3), torch.zeros(2, 4), backend="cuda")


def test_the_choice_is_logged_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.backends")
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
    caplog.set_level(logging.INFO, logger="ops.backends")

    class OnMps:
        device = torch.device("mps")

    assert backends.choose("scan", {"chunked": "slow"}, "auto", OnMps(), {}) == "slow"  # pyright: ignore
    assert "no fused kernel for mps" in caplog.text


def test_small_floats_on_a_cpu_go_to_the_compiled_kernels(caplog: pytest.LogCaptureFixture):
    if problem := cpu_library.problem():
        pytest.skip(problem)
    caplog.set_level(logging.INFO, logger="ops.backends")
    for dtype in (torch.float32, torch.bfloat16):
        causal_conv1d_fn(torch.zeros(1, 2, 3, dtype=dtype), torch.zeros(2, 4))
    causal_conv1d_fn(torch.zeros(1, 2, 3, dtype=torch.float16), torch.zeros(2, 4))
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0] == "causal convolution on cpu: backend cpu"
    assert "backend chunked" in lines[1]
    assert len(lines) == 2


def test_a_requested_backend_is_not_logged(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.backends")
    selective_scan_fn(**ScanCase().tensors(), backend="reference")
    assert not caplog.records


def test_auto_on_a_gpu_uses_the_first_kernel_that_can(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    class OnCuda:
        device = torch.device("cuda:0")

    table = {"chunked": "slow", "triton": "ours", "cuda": "theirs"}

    def chosen(ours: str | None, theirs: str | None, operation: str = "selective scan") -> Any:
        obstacles = {"triton": lambda: ours, "cuda": lambda: theirs}
        return backends.choose(operation, table, "auto", OnCuda(), obstacles)  # pyright: ignore

    def warnings() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]

    monkeypatch.delenv("MAMBA_MAE_TRITON", raising=False)
    assert chosen(None, None) == "theirs"
    assert not warnings()
    assert chosen(None, "no package") == "slow"  # the environment does not enable our kernels
    (not_enabled,) = warnings()
    assert "MAMBA_MAE_TRITON=1 tries them" in not_enabled
    monkeypatch.setenv("MAMBA_MAE_TRITON", "1")
    assert chosen(None, "no package") == chosen(None, "no package", "causal convolution") == "ours"
    (_, unverified) = warnings()
    assert "not yet on a GPU" in unverified
    assert chosen("too old", "no package", "causal convolution") == "slow"
    assert chosen("too old", "no package") == "slow"
    (*_, slow) = warnings()
    assert "no package; too old" in slow
    assert "no faster than on a CPU" in slow
