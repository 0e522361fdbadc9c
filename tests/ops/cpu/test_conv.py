import functools
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ops import causal_conv1d_fn
from ops.cpu import build as cpu_build
from ops.cpu import library as cpu_library
from tests.helpers.ops_cases import (
    assert_close,
    conv_tensors,
    exact,
    forward_backward,
    reference_conv,
    require_kernels,
    threads,
)

cpu_conv = functools.partial(causal_conv1d_fn, backend="cpu")


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("activation", [None, "silu"])
@pytest.mark.parametrize("length", [1, 3, 33, 100])
@pytest.mark.parametrize("width", [1, 3, 4, 5, 20])
def test_conv_in_float32(width: int, length: int, activation: str | None, reverse: bool):
    tensors, options = conv_tensors(length, width), {"activation": activation, "reverse": reverse}
    expected = forward_backward(reference_conv, exact(tensors), **options)
    assert_close(forward_backward(cpu_conv, tensors, **options), expected, rtol=5e-6, dtype=False)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_conv_in_bfloat16(count: int):
    with threads(count):
        tensors = conv_tensors(100, 4, dim=64, dtype=torch.bfloat16)
        expected = forward_backward(reference_conv, exact(tensors), activation="silu")
        assert_close(forward_backward(cpu_conv, tensors, activation="silu"), expected, rtol=1e-2, dtype=False)


def test_the_portable_code_without_wide_registers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path))
    monkeypatch.setattr(cpu_build, "_instruction_sets", lambda: [[]])
    narrow = cpu_library._load()
    monkeypatch.setattr(cpu_library, "library", lambda: narrow)
    tensors = conv_tensors(50, 4)
    expected = forward_backward(reference_conv, exact(tensors), activation="silu")
    assert_close(forward_backward(cpu_conv, tensors, activation="silu"), expected, rtol=5e-6, dtype=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
def test_operators_keep_pytorchs_contract():
    x, weight, bias = conv_tensors(9, 4).values()
    torch.library.opcheck(torch.ops.mamba_mae.conv.default, (x, weight, bias, True, True))
    torch.library.opcheck(torch.ops.mamba_mae.conv.default, (x, weight, None, False, False))


def test_second_derivatives_are_refused():
    tensors = conv_tensors(9, 4)
    (dx,) = torch.autograd.grad((cpu_conv(**tensors) ** 2).sum(), tensors["x"], create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        dx.sum().backward()


def test_autocast_and_checkpointing():
    conv, tensors = functools.partial(cpu_conv, activation="silu"), conv_tensors(9, 4)
    plain = forward_backward(conv, tensors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(forward_backward(conv, tensors), plain, rtol=1e-7)
    saved = forward_backward(lambda **t: checkpoint(conv, *t.values(), use_reentrant=False), tensors)
    assert_close(saved, plain, rtol=1e-7)
