"""Mixing pairs of volumes: boxes in three dimensions, and labels in the proportion of the voxels."""

import numpy as np
import pytest
import torch

from util.training.loader import seed_all
from util.training.mixup import VolumeMixup, random_box

LABELS = torch.tensor([0, 1])


def mixed(size=(8, 6, 10), **alphas):
    """A volume of zeros of class 0 and one of ones of class 1, mixed."""
    volume = torch.stack([torch.zeros(2, *size), torch.ones(2, *size)])
    return VolumeMixup(**{"mixup_alpha": 0.0, **alphas}, label_smoothing=0.0, num_classes=2)(volume, LABELS)


def test_labels_are_mixed_as_the_voxels_are():
    seed_all(0, 0)
    for alphas in ({"cutmix_alpha": 1.0}, {"mixup_alpha": 1.0}, {"mixup_alpha": 1.0, "cutmix_alpha": 1.0}):
        for _ in range(20):
            volume, label = mixed(**alphas)
            torch.testing.assert_close(volume.mean((1, 2, 3, 4)), label[:, 1], atol=1e-5, rtol=0)
            torch.testing.assert_close(label.sum(1), torch.ones(2))


def test_cutmix_cuts_a_box_in_three_dimensions():
    """timm's own runs through the whole first axis, whatever its length."""
    seed_all(0, 0)
    depths = set()
    for _ in range(30):
        volume, _ = mixed(cutmix_alpha=1.0)
        first = volume[0, 0]
        assert set(first.unique().tolist()) <= {0.0, 1.0}
        inside = first.nonzero()
        if len(inside):
            low, high = inside.min(0).values, inside.max(0).values + 1
            assert len(inside) == int((high - low).prod())
            depths.add(int(high[0] - low[0]))
        assert torch.equal(volume[1, 0], 1 - first)
    assert len(depths) > 2


def test_mixup_blends_and_cutmix_does_not():
    seed_all(1, 0)
    blend, _ = mixed(mixup_alpha=1.0)
    assert len(blend[0].unique()) == 1
    assert 0 < float(blend[0, 0, 0, 0, 0]) < 1
    cut, _ = mixed(cutmix_alpha=1.0)
    assert len(cut[0].unique()) == 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3])
def test_a_box_is_as_large_as_asked_where_no_border_cuts_it(share):
    seed_all(0, 0)
    sizes = [np.zeros((40, 30, 20))[random_box((40, 30, 20), share)].size for _ in range(200)]
    assert max(sizes) == pytest.approx(share * 40 * 30 * 20, rel=0.15)
