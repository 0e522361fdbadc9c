import subprocess
import sys

import pytest
import torch

from ops import selective_scan_fn
from ops.triton import backend as gpu
from tests.helpers.ops_cases import ScanCase


def test_cpu_tensors_are_refused_without_importing_the_kernels():
    code = (
        "import sys, torch, ops.triton.backend as backend; "
        "print(backend.unavailable(torch.zeros(1)), 'ops.triton.scan' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "takes CUDA tensors, got one on cpu" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_a_requested_backend_that_cannot_run_raises():
    with pytest.raises(ValueError, match='"triton" takes CUDA tensors'):
        selective_scan_fn(**ScanCase().tensors(torch.float32), backend="triton")


class OnCuda:
    device, dtype = torch.device("cuda:0"), torch.float32


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "import_problem", lambda: None)
    monkeypatch.setattr(gpu, "device_problem", lambda device: None)
    return OnCuda()


def test_unsupported_sizes_name_the_alternative(card: OnCuda, monkeypatch: pytest.MonkeyPatch):
    assert gpu.unavailable(card, states=64, width=4) is None  # pyright: ignore
    assert 'up to 64 states, got 65: use backend="chunked"' in str(gpu.unavailable(card, states=65))  # pyright: ignore
    assert "width 1 to 4, got 5" in str(gpu.unavailable(card, width=5))  # pyright: ignore
    monkeypatch.setattr(OnCuda, "dtype", torch.float64)
    assert "got torch.float64" in str(gpu.unavailable(card))  # pyright: ignore


def test_a_missing_triton_names_the_install_command(card: OnCuda, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gpu, "import_problem", lambda: "ModuleNotFoundError: No module named 'triton'")
    assert "needs Triton (ModuleNotFoundError" in str(gpu.unavailable(card))  # pyright: ignore
    assert "requirements.txt" in str(gpu.unavailable(card))  # pyright: ignore


def test_a_gpu_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch):
    gpu.device_problem.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (6, 1))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 1080")
    problem = gpu.device_problem(torch.device("cuda:0"))
    gpu.device_problem.cache_clear()
    assert problem == "GTX 1080 has compute capability 6.1, Triton needs 7.5"
