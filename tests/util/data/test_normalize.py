"""Normalisation: per contrast over the brain by default, the paper's joint statistics as an option."""

import pytest
import torch

from util.data.normalize import normalize_volume


@pytest.fixture
def volume() -> torch.Tensor:
    volume = torch.zeros(2, 6, 6, 6)
    volume[:, 1:5, 1:5, 1:5] = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.1
    volume[1] *= 2
    return volume


def test_air_around_the_head_does_not_change_the_zscore(volume):
    padded = torch.nn.functional.pad(volume, (5, 5, 5, 5, 5, 5))
    inner = normalize_volume(padded, "zscore")[:, 5:-5, 5:-5, 5:-5]
    torch.testing.assert_close(inner, normalize_volume(volume, "zscore"))
    joint = normalize_volume(padded, "zscore-joint")[:, 5:-5, 5:-5, 5:-5]
    assert not torch.allclose(joint, normalize_volume(volume, "zscore-joint"), atol=0.1)


def test_gain_of_one_contrast_does_not_change_any_zscore(volume):
    brighter = volume.clone()
    brighter[1] *= 0.5
    torch.testing.assert_close(normalize_volume(brighter, "zscore"), normalize_volume(volume, "zscore"))
    joint = normalize_volume(brighter, "zscore-joint")
    assert not torch.allclose(joint[0], normalize_volume(volume, "zscore-joint")[0], atol=0.1)


def test_joint_is_one_mean_and_deviation(volume):
    expected = (volume - volume.mean()) / volume.std(correction=0)
    torch.testing.assert_close(normalize_volume(volume, "zscore-joint"), expected)


def test_a_contrast_that_is_zero_in_part_of_the_brain_is_brain_there(volume):
    volume[0, 2, 2, 2] = 0
    assert normalize_volume(volume, "zscore")[0, 2, 2, 2] < -0.5


def test_empty_volume_stays_zero():
    for how in ("zscore", "zscore-joint", "range"):
        assert (normalize_volume(torch.zeros(2, 4, 4, 4), how) == 0).all()


def test_range_is_unchanged_and_unknown_is_refused(volume):
    assert torch.equal(normalize_volume(volume, "range"), volume)
    with pytest.raises(ValueError, match="choose one of zscore, zscore-joint, range"):
        normalize_volume(volume, "minmax")  # pyright: ignore[reportArgumentType]
