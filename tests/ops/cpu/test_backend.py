import pytest
import torch

from ops import causal_conv1d_fn, selective_scan_fn
from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from tests.helpers.ops_cases import ScanCase, conv_tensors, reference_scan, require_kernels


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def test_conv_leaves_packed_sequences_to_pytorch():
    tensors = conv_tensors(9, 4)
    out, final = causal_conv1d_fn(**tensors, return_final_states=True, backend="cpu")
    torch.testing.assert_close(final, tensors["x"][..., -3:])
    packed = causal_conv1d_fn(**tensors, seq_idx=torch.arange(18).reshape(2, 9) // 3, backend="cpu")
    assert not torch.allclose(out, packed)


def test_scan_leaves_constant_matrices_to_pytorch():
    tensors = ScanCase(constant_B=True).tensors(torch.float32)
    expected = reference_scan(**tensors, delta_softplus=True)
    torch.testing.assert_close(selective_scan_fn(**tensors, delta_softplus=True, backend="cpu"), expected)


def test_what_the_kernels_cannot_take(monkeypatch: pytest.MonkeyPatch):
    assert cpu.unavailable(torch.zeros(1)) is None
    assert "float64" in str(cpu.unavailable(torch.zeros(1, dtype=torch.float64)))
    assert "CPU tensors" in str(cpu.unavailable(torch.zeros(1, device="meta")))
    monkeypatch.setattr(cpu_library, "problem", lambda: "no compiler")
    assert "no compiler" in str(cpu.unavailable(torch.zeros(1)))


def test_nothing_is_kept_without_gradients():
    tensors = {k: x.detach() for k, x in ScanCase(length=40).tensors(torch.float32).items()}
    arguments = (*tensors.values(), True, False)
    assert torch.ops.mamba_mae.scan(*arguments, False)[2].numel() == 0
    assert torch.ops.mamba_mae.scan(*arguments, True)[2].shape[0] == 2  # before steps 16 and 32
