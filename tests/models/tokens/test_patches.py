import torch
import torch.nn.functional as F

from models.tokens.patches import PatchEmbed3D, patchify, take_tokens, unpatchify
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


def test_chosen_patches_are_those_of_the_whole_volume(volume):
    ids = torch.stack([torch.randperm(24)[:7] for _ in volume])
    torch.testing.assert_close(gather_patches_fn(volume, ids, 8), take_tokens(patchify(volume, 8), ids))
    embed = PatchEmbed3D(4, 12, 8)
    torch.testing.assert_close(embed(volume, ids), take_tokens(embed(volume), ids))


def test_a_learned_vector_replaces_a_missing_contrast(volume):
    embed = PatchEmbed3D(4, 12, 8, contrast_dropout=0.5).eval()
    whole = PatchEmbed3D(4, 12, 8)
    whole.load_state_dict({k: v for k, v in embed.state_dict().items() if k != "missing_contrast"})
    torch.testing.assert_close(embed(volume), whole(volume))  # nothing is missing
    lacking = volume.clone()
    lacking[0, 1] = lacking[1, 2] = lacking[1, 3] = 0
    convolved = F.conv3d(lacking, embed.proj.weight, embed.proj.bias, stride=8).flatten(2).mT
    stand_in = torch.stack([embed.missing_contrast[1], embed.missing_contrast[2:].sum(0)])
    torch.testing.assert_close(embed(lacking), embed.norm(convolved + stand_in[:, None]), atol=1e-5, rtol=1e-5)
    ids = torch.tensor([[3, 0, 17], [5, 23, 6]])
    torch.testing.assert_close(embed(lacking, ids), take_tokens(embed(lacking), ids))


def test_background_patches_of_a_present_contrast_are_not_missing(volume):
    embed = PatchEmbed3D(4, 12, 8, contrast_dropout=0.5).eval()
    volume[:, 2, :, :, :24] = 0  # all patches but the last column
    assert not embed._missing(volume).any()


def test_training_leaves_out_each_contrast_with_the_given_probability_and_never_all():
    embed = PatchEmbed3D(4, 12, 8, contrast_dropout=0.8).train()
    volume = torch.randn(4000, 4, 1, 1, 1)
    volume[:1000, 0] = 0  # missing already, so it cannot be the contrast that stays
    missing_BC = embed._missing(volume)
    assert missing_BC[:1000, 0].all()
    assert not missing_BC.all(1).any()
    alone = 0.8 - 0.8**4 / 4  # dropped, minus the case that all are dropped and this one stays
    torch.testing.assert_close(missing_BC[1000:].float().mean(0), torch.full((4,), alone), atol=0.03, rtol=0)
    assert not embed.eval()._missing(volume[1000:]).any()


def test_voxels_of_a_dropped_contrast_have_no_effect(volume):
    embed = PatchEmbed3D(4, 12, 8, contrast_dropout=0.9).train()
    torch.manual_seed(3)
    missing_BC = embed._missing(volume)
    other = torch.where(missing_BC[:, :, None, None, None], torch.randn_like(volume), volume)
    tokens = []
    for shown in (volume, other):
        torch.manual_seed(3)
        tokens.append(embed(shown))
    assert missing_BC.any()
    assert torch.equal(*tokens)


def test_without_contrast_dropout_there_is_no_key_and_zeros_are_values(volume):
    embed = PatchEmbed3D(4, 12, 8)
    assert set(embed.state_dict()) == {"proj.weight", "proj.bias", "norm.weight", "norm.bias"}
    volume[:, 0] = 0
    convolved = F.conv3d(volume, embed.proj.weight, embed.proj.bias, stride=8).flatten(2).mT
    torch.testing.assert_close(embed(volume), embed.norm(convolved), atol=1e-5, rtol=1e-5)
