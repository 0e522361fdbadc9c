"""Random masks that show every patch, and the mean of each token over them."""

import pytest
import torch

from tests.helpers.vis_cases import SIZE, tiny_mae
from vis.maps.masked_encoder import covering_noise, visible_tokens


@pytest.mark.parametrize(("tokens", "keep"), [(12, 3), (12, 5), (7, 7), (9, 1)])
def test_every_patch_is_visible_in_every_round(tokens, keep):
    noise = covering_noise(tokens, keep, rounds=3, seed=0)
    masks = -(-tokens // keep)
    assert noise.shape == (3 * masks, tokens)
    kept = noise.argsort(dim=1)[:, :keep]
    for masks_of_round in kept.split(masks):
        assert set(masks_of_round.flatten().tolist()) == set(range(tokens))
    assert not torch.equal(noise, covering_noise(tokens, keep, rounds=3, seed=1)) or tokens == keep == 7


def test_mean_over_masks_agrees_with_each_mask_alone():
    mae, volume = tiny_mae(), torch.randn(2, 4, *SIZE)
    tokens, seen, masks, _ = visible_tokens(mae, volume, mask_ratio=0.75, rounds=2, seed=3)
    places, keep = 12, 3
    assert masks == 2 * 4
    sums, counts = torch.zeros(2, places, 24), torch.zeros(places)
    with torch.no_grad():
        for noise in covering_noise(places, keep, 2, 3):
            out = mae.eval()(volume, mask_ratio=0.75, noise=noise.expand(2, -1))
            for sample in range(2):
                for place, token in zip(out.ids_keep[sample].tolist(), out.latent[sample], strict=True):
                    sums[sample, place] += token
                    counts[place] += 0.5
    torch.testing.assert_close(seen, counts.int())
    torch.testing.assert_close(tokens, sums / counts[:, None], atol=1e-5, rtol=1e-4)


def test_standard_error_is_the_spread_between_repeats():
    mae, volume = tiny_mae(), torch.randn(1, 4, *SIZE)
    found = [visible_tokens(mae, volume, mask_ratio=0.75, rounds=4, seed=seed) for seed in range(20)]
    tokens = torch.stack([each.tokens_BLE[0] for each in found])
    spread = (tokens.var(dim=0).sum(-1).mean() / tokens.mean(0).square().sum(-1).mean()).sqrt()
    said = torch.stack([each.error_B for each in found]).square().mean().sqrt()
    assert spread > 0.001
    assert said / spread == pytest.approx(1, abs=0.2)
    more = visible_tokens(mae, volume, mask_ratio=0.75, rounds=32)
    assert more.error_B / said == pytest.approx(8**-0.5, rel=0.3)
    assert visible_tokens(mae, volume, mask_ratio=0.75, rounds=1).error_B.isnan()


@pytest.mark.parametrize(
    ("mask_ratio", "rounds", "flag"), [(0.99, 1, "--mask_ratio"), (0.0, 1, "--mask_ratio"), (0.5, 0, "--rounds")]
)
def test_bad_values_name_the_flag(mask_ratio, rounds, flag):
    with pytest.raises(ValueError, match=flag):
        visible_tokens(tiny_mae(), torch.randn(1, 4, *SIZE), mask_ratio=mask_ratio, rounds=rounds)
