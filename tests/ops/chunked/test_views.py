import pytest
import torch

from ops.chunked import views


def test_positions_are_views_and_are_restored():
    x = torch.randn(2, 5, 6).transpose(1, 2)  # (B, I, L) on channel-last memory
    seen = views.per_position(x, groups=3)
    assert seen.shape == (5, 2, 3, 1, 2)
    assert seen.data_ptr() == x.data_ptr()
    assert seen[4, 1, 2, 0, 1] == x[1, 2 * 2 + 1, 4]
    assert torch.equal(views.from_per_position(seen), x)


def test_channels_are_restored():
    x = torch.randn(6, 4)
    seen = views.per_channel(x, groups=2)
    assert seen.shape == (1, 1, 2, 4, 3)
    assert seen[0, 0, 1, 3, 2] == x[5, 3]
    assert torch.equal(views.from_per_channel(seen), x)


@pytest.mark.parametrize("shape", [(6, 4), (2, 4, 5), (2, 3, 4, 5)])
def test_state_matrix_reads_and_collects_like_einsum(shape: tuple[int, ...]):
    groups = 3 if len(shape) == 4 else 1
    matrix = torch.randn(shape, dtype=torch.float64)
    full = matrix if matrix.dim() == 4 else (matrix[:, None] if matrix.dim() == 3 else None)
    seen = views.StateMatrix.of(matrix, groups)
    state = torch.randn(5, 2, groups, 4, 6 // groups, dtype=torch.float64)
    x = torch.randn(5, 2, groups, 1, 6 // groups, dtype=torch.float64)
    total = seen.new_gradient(torch.float64)
    seen.add_gradient(total, slice(0, 5), slice(0, 2), x, state)
    gradient = seen.from_gradient(total, matrix.shape)
    if full is None:
        expected = torch.einsum("jn,tbgnj->tbgj", matrix, state)
        expected_gradient = torch.einsum("tbgj,tbgnj->jn", x[:, :, :, 0], state)
    else:
        expected = torch.einsum("bgnt,tbgnj->tbgj", full, state)
        expected_gradient = torch.einsum("tbgj,tbgnj->bgnt", x[:, :, :, 0], state).reshape(shape)
    torch.testing.assert_close(seen.read(state)[:, :, :, 0], expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_a_matrix_with_another_number_of_groups_is_an_assertion_error():
    for groups in (1, 3):
        with pytest.raises(AssertionError, match=f"2 groups where {groups} were expected"):
            views.StateMatrix.of(torch.zeros(4, 2, 3, 5), groups)
