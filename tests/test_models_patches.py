import torch
import torch.nn.functional as F

from models.patches import PatchEmbed3D, patchify, take_tokens, unpatchify
from ops import gather_patches_fn


def test_patchify_orders_values_z_y_x_contrast():
    volume = torch.arange(2 * 4 * 4 * 8.0).view(1, 2, 4, 4, 8)
    patches = patchify(volume, 4)
    assert patches.shape == (1, 2, 128)
    assert patches[0, 0, 0] == volume[0, 0, 0, 0, 0]
    assert patches[0, 0, 1] == volume[0, 1, 0, 0, 0]  # contrast is fastest
    assert patches[0, 0, 2] == volume[0, 0, 0, 0, 1]  # then x
    assert patches[0, 1, 0] == volume[0, 0, 0, 0, 4]  # the next patch along x


def test_unpatchify_is_the_inverse(volume):
    assert torch.equal(unpatchify(patchify(volume, 8), 8, (2, 3, 4)), volume)


def test_embedding_is_the_strided_convolution(volume):
    embed = PatchEmbed3D(4, 12, 8)
    convolved = F.conv3d(volume, embed.proj.weight, embed.proj.bias, stride=8).flatten(2).mT
    torch.testing.assert_close(embed(volume), embed.norm(convolved), atol=1e-5, rtol=1e-5)


def test_embedding_of_kept_patches_equals_the_rows_of_all(volume):
    embed, ids = PatchEmbed3D(4, 12, 8), torch.tensor([[3, 0, 17], [5, 23, 6]])
    everything = embed(volume)
    torch.testing.assert_close(embed(volume, ids), torch.stack([everything[b, ids[b]] for b in range(2)]))


def test_named_patches_are_those_of_the_whole_volume(volume):
    ids = torch.stack([torch.randperm(24)[:7] for _ in volume])
    torch.testing.assert_close(gather_patches_fn(volume, ids, 8), take_tokens(patchify(volume, 8), ids))
    embed = PatchEmbed3D(4, 12, 8)
    torch.testing.assert_close(embed(volume, ids), take_tokens(embed(volume), ids))
