import subprocess
import sys
from typing import Any

import pytest
import torch

from ops import available_backends, causal_conv1d_fn, selective_scan_fn, ssd_scan_fn
from tests.helpers.ops_cases import ScanCase
from tests.helpers.ssd_cases import SSDCase


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


def test_importing_ops_imports_no_kernel_and_prints_nothing():
    heavy = {"mamba_ssm", "causal_conv1d", "torch.utils.cpp_extension"}
    code = f"import sys, ops; bad = {heavy} & set(sys.modules); assert not bad, bad"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
