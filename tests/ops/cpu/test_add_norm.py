from typing import Any

import pytest
import torch
from torch import Tensor

from ops.cpu import add_norm as cpu_add_norm
from ops.reference import add_norm
from tests.helpers.ops_cases import assert_close, forward_backward, require_kernels, threads


@pytest.fixture(scope="module", autouse=True)
def _kernels():
    require_kernels()


def case(width: int = 22, residual: bool = True, rotations: int = 2, scale: bool = False) -> dict[str, Any]:
    """Leaf tensors of one call; rotations 0, 1 for all samples, or one for each of 2."""
    return {
        "hidden": torch.randn(2, 7, width).requires_grad_(),
        "residual": torch.randn(2, 7, width).requires_grad_() if residual else None,
        "rotation": torch.polar(*torch.rand(2, rotations, 7, width // 2)) if rotations else None,
        "weight": torch.randn(width).requires_grad_(),
        "scale": torch.tensor([0.0, 1.25]) if scale else None,
    }


def fused(hidden: Tensor, residual: Tensor, rotation: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    assert cpu_add_norm.takes(hidden, residual, rotation)
    return cpu_add_norm.add_norm(hidden, residual, rotation, weight, 1e-5, scale)


def plain(hidden: Tensor, residual: Tensor, rotation: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    return add_norm.add_norm(hidden, residual, rotation, weight, 1e-5, scale)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"width": 192}, {"residual": False}, {"rotations": 0}, {"rotations": 1, "scale": True}, {"width": 2}],
    ids=str,
)
def test_values_and_gradients_in_float32(options: dict[str, Any], count: int):
    tensors = case(**options)
    with threads(count):
        assert_close(forward_backward(fused, tensors), forward_backward(plain, tensors), rtol=3e-6)


@pytest.mark.parametrize("scale", [False, True])
def test_bfloat16_hidden_under_autocast(scale: bool):
    tensors = case(width=64, scale=scale)
    tensors["hidden"] = tensors["hidden"].detach().bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = forward_backward(fused, tensors)
    assert actual["out"].dtype == torch.bfloat16
    assert actual["extra"].dtype == actual["dresidual"].dtype == torch.float32
    assert_close(actual, forward_backward(plain, tensors), rtol=1e-2, dtype=False)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # of opcheck itself
@pytest.mark.parametrize("options", [{}, {"residual": False, "rotations": 0, "scale": True}], ids=str)
def test_operator_keeps_pytorchs_contract(options: dict[str, Any]):
    hidden, residual, rotation, weight, scale = case(**options).values()
    cos_sin = cpu_add_norm.cos_sin(rotation)
    torch.library.opcheck(torch.ops.mamba_mae.add_norm.default, (hidden, residual, cos_sin, weight, scale, 1e-5, False))


def test_empty_and_strided_input():
    weight = torch.ones(4)
    assert cpu_add_norm.add_norm(torch.zeros(0, 3, 4), None, None, weight, 1e-5, None)[0].shape == (0, 3, 4)
    hidden = torch.randn(2, 4, 3).mT
    expected = add_norm.add_norm(hidden, None, None, weight, 1e-5)
    torch.testing.assert_close(cpu_add_norm.add_norm(hidden, None, None, weight, 1e-5, None), expected)
