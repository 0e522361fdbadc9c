import pytest
import torch

from ops.cpu import backend as cpu
from ops.cpu import library as cpu_library
from ops.reference import scan as reference
from tests.helpers.ops_cases import ScanCase, conv_tensors, require_kernels


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def test_conv_hands_states_and_packed_sequences_over():
    tensors = conv_tensors(9, 4)
    out, final = cpu.causal_conv1d(**tensors, return_final_states=True)
    torch.testing.assert_close(final, tensors["x"][..., -3:])
    packed = cpu.causal_conv1d(**tensors, seq_idx=torch.arange(18).reshape(2, 9) // 3)
    assert not torch.allclose(out, packed)


def test_scan_hands_constant_matrices_over():
    tensors = ScanCase(constant_B=True).tensors(torch.float32)
    expected = reference.selective_scan(**tensors, delta_softplus=True)
    torch.testing.assert_close(cpu.selective_scan(**tensors, delta_softplus=True), expected)


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
