import pytest
import torch

from ops import operators


def test_a_registered_operator_has_shapes_and_one_derivative():
    operators.register("test_cube(Tensor x) -> Tensor", lambda x: x**3, torch.empty_like)
    operators.register(
        "test_cube_backward(Tensor dy, Tensor x) -> Tensor",
        lambda dy, x: 3 * x**2 * dy,
        lambda dy, x: torch.empty_like(x),
    )
    operators.differentiate(
        "test_cube",
        lambda ctx, dy: torch.ops.mamba_mae.test_cube_backward(dy, *ctx.saved_tensors),
        lambda ctx, inputs, output: ctx.save_for_backward(*inputs),
    )
    x = torch.tensor([2.0], requires_grad=True)
    (dx,) = torch.autograd.grad(torch.ops.mamba_mae.test_cube(x), x, create_graph=True)
    assert dx.item() == 12
    with pytest.raises(RuntimeError, match="second derivatives of mamba_mae::test_cube"):
        dx.backward()
    with torch.device("meta"):
        assert torch.ops.mamba_mae.test_cube(torch.empty(3)).shape == (3,)


def test_placeholders():
    rows = operators.empty_rows(torch.zeros(2, 3, 4))
    assert rows.shape == (2, 3, 4)
    assert rows.transpose(1, 2).is_contiguous()
    like = torch.zeros(2)
    assert operators.empty_or_nothing(None, like).numel() == 0
    assert operators.empty_or_nothing(torch.zeros(5), like).shape == (5,)
