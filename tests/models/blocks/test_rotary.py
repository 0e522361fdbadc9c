import torch

from models.blocks.rotary import axial_rotation, plane_rotation, sequence_rotation
from models.tokens.positions import grid_positions
from ops.reference.add_norm import rotate

GRID = (2, 3, 4)


def axial(dim=24):
    return axial_rotation(grid_positions(GRID).unsqueeze(0), dim)


def test_rotation_varies_along_every_axis_and_only_its_own_pairs():
    table = torch.view_as_real(axial()).view(*GRID, 3, 4, 2)  # (z, y, x, axis, pair, 2)
    for axis in range(3):
        steps = table.diff(dim=axis).abs().amax(dim=(0, 1, 2, 4, 5))
        assert steps[axis] > 0.5
        assert all(steps[other] == 0 for other in range(3) if other != axis)


def test_rotation_keeps_length_and_is_linear():
    hidden, residual = torch.randn(2, 24, 26), torch.randn(2, 24, 26)  # 26 channels: one pair beyond the thirds
    rotation = axial(26)
    torch.testing.assert_close(rotate(hidden, rotation).norm(dim=-1), hidden.norm(dim=-1))
    torch.testing.assert_close(
        rotate(hidden + residual, rotation), rotate(hidden, rotation) + rotate(residual, rotation)
    )
    torch.testing.assert_close(rotate(hidden, rotation)[..., 24:], hidden[..., 24:])


def test_products_depend_on_relative_position():
    q, k = torch.randn(1, 1, 24).expand(1, 24, 24), torch.randn(1, 1, 24).expand(1, 24, 24)
    products = rotate(q, axial()) @ rotate(k, axial()).mT
    places = grid_positions(GRID)
    index = {tuple(p): i for i, p in enumerate(places.tolist())}
    a, b = products[0, index[0, 0, 0], index[1, 1, 2]], products[0, index[0, 1, 1], index[1, 2, 3]]
    torch.testing.assert_close(a, b)


def test_pairs_rotate_by_the_stated_angle():
    x = torch.zeros(1, 24, 24)
    x[..., 0] = 1  # first pair, highest frequency, follows z
    turned = rotate(x, axial())[0].view(*GRID, 24)
    torch.testing.assert_close(
        turned[1, 0, 0, :2],
        torch.tensor([1.0, 0.0]).new_tensor([torch.cos(torch.tensor(1.0)), torch.sin(torch.tensor(1.0))]),
    )


def test_the_papers_rotations_omit_channels_and_the_z_axis():
    sequence = sequence_rotation(5, 16, torch.device("cpu"))
    assert (sequence[..., 4:] == 1).all()
    assert (sequence[0, 1:, 0] != 1).all()
    plane = plane_rotation(grid_positions(GRID), GRID, 16).view(*GRID, 8)
    assert (plane[0] == plane[1]).all()  # independent of z
    assert (plane[:, 0] != plane[:, 1]).any()
    assert (plane[:, :, 0] != plane[:, :, 1]).any()
