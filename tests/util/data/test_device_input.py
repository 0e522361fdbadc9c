"""Batches augmented on the device: torchio's geometry, the loader's distribution, background at 0."""

import math

import pytest
import torch
import torchio

from ops import resample_affine_fn
from ops.reference import resample
from tests.helpers.prepared import make_prepared
from util.data.augment import Strengths
from util.data.dataset import PreparedVolumes
from util.data.device_input import DeviceInput, Drawn, draw, move, shade, training_input
from util.data.normalize import normalize_volume

OFF = Strengths(scale=0, degrees=0, translation=0, flip_probability=0, noise=0, log_gamma=0)


def only(**part):
    return Strengths(**{**OFF.__dict__, **part})


@pytest.fixture
def stored():
    """Uneven boxes in air, uint8 (2, 3, 16, 20, 24)."""
    stored = torch.zeros(2, 3, 16, 20, 24, dtype=torch.uint8)
    stored[:, :, 4:12, 5:15, 7:20] = torch.randint(40, 255, (2, 3, 8, 10, 13), dtype=torch.uint8)
    return stored


@pytest.mark.parametrize("strengths", [None, OFF], ids=["none", "zero"])
@pytest.mark.parametrize("normalize", ["zscore", "zscore-joint", "range"])
def test_zero_strength_is_the_loaders_normalisation(stored, strengths, normalize):
    found = DeviceInput(normalize, strengths)(stored)
    for one, volume in zip(found, stored, strict=True):
        torch.testing.assert_close(one, normalize_volume(volume.float() / 255, normalize))


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize(
    ("scales", "degrees", "voxels"),
    [((1, 1, 1), (0, 0, 0), (2, -1, 3)), ((1.1, 0.9, 1.05), (0, 0, 0), (0, 0, 0)), ((1, 1, 1), (9, 0, 0), (0, 0, 0)),
     ((1, 1, 1), (0, 9, 0), (0, 0, 0)), ((1, 1, 1), (0, 0, 9), (0, 0, 0)),
     ((1.08, 0.93, 1.05), (7, -10, 9), (1.5, -0.5, 0.7))],
)  # fmt: skip
@pytest.mark.parametrize("sample", [resample_affine_fn, resample.resample_affine], ids=["fastest", "plain"])
def test_affine_is_torchios(stored, scales, degrees, voxels, count, sample):
    volume = stored[:count].float() / 255
    drawn = Drawn(
        flip=torch.zeros(count, dtype=torch.bool),
        scales=torch.tensor([scales] * count, dtype=torch.float32),
        radians=torch.tensor([degrees] * count).deg2rad(),
        voxels=torch.tensor([voxels] * count, dtype=torch.float32),
        gamma=torch.ones(count, 3),
        noise=torch.zeros(count),
    )
    theirs = torchio.Affine(scales=scales, degrees=degrees, translation=voxels, default_pad_value=0)
    found = move(volume, drawn, sample)
    assert not torch.allclose(found, volume, atol=0.1)
    for one, original in zip(found, volume, strict=True):
        torch.testing.assert_close(one, theirs(original), rtol=0, atol=1e-5)


def test_flip_is_exact(stored):
    found = DeviceInput("range", only(flip_probability=1.0))(stored)
    assert torch.equal(found, (stored.float() / 255).flip(-1))


@pytest.mark.parametrize("part", ["scale", "degrees", "translation", "noise", "log_gamma"])
def test_each_part_has_an_effect_that_differs_between_samples(stored, part):
    stored[1] = stored[0]
    first, second = DeviceInput("range", only(**{part: 0.3 if part != "degrees" else 10.0}))(stored)
    assert not torch.allclose(first, stored[0].float() / 255, atol=1e-3)
    assert not torch.allclose(first, second, atol=1e-4)


def test_each_contrast_has_its_own_gamma(stored):
    gamma = torch.tensor([[0.8, 1.0, 1.2], [1.1, 0.9, 1.0]])
    drawn = Drawn(torch.zeros(2, dtype=torch.bool), *torch.ones(1, 2, 3), *torch.zeros(2, 2, 3), gamma, torch.zeros(2))
    volume = stored.float() / 255
    torch.testing.assert_close(shade(volume.clone(), drawn), volume ** gamma[:, :, None, None, None])


def test_values_that_resampling_rounds_below_zero_are_clipped(stored):
    drawn = Drawn(torch.zeros(2, dtype=torch.bool), *torch.ones(1, 2, 3), *torch.zeros(2, 2, 3),
                  torch.full((2, 3), 1.3), torch.zeros(2))  # fmt: skip
    volume = stored.float() / 255
    volume[:, 1] = -1e-9
    assert shade(volume, drawn).isfinite().all()


def test_background_stays_zero_and_range_is_kept(stored):
    shaded = DeviceInput("range", only(noise=0.5, log_gamma=0.3))(stored)
    assert torch.equal(shaded > 0, stored > 0)
    assert shaded.max() <= 1
    scored = DeviceInput("zscore", Strengths(translation=1))(stored)
    assert (scored[:, :, 0] == 0).all()
    brain = (scored != 0).any(1, keepdim=True).expand_as(scored)
    assert scored[0, 1][brain[0, 1]].mean().abs() < 1e-4


def test_parameters_have_the_stated_distribution():
    torch.manual_seed(0)
    s = Strengths()
    drawn = draw(s, 4000, 4)
    assert drawn.flip.float().mean() == pytest.approx(s.flip_probability, abs=0.03)
    for values, low, high in (
        (drawn.scales, 1 - s.scale, 1 + s.scale),
        (drawn.radians.rad2deg(), -s.degrees, s.degrees),
        (drawn.voxels, -s.translation, s.translation),
        (drawn.gamma.log(), -s.log_gamma, s.log_gamma),
        (drawn.noise, 0, s.noise),
    ):
        values = values.flatten().sort().values
        uniform = torch.linspace(low, high, len(values))
        assert (values - uniform).abs().max() < 0.05 * (high - low)  # Kolmogorov-Smirnov distance
    assert drawn.gamma.shape == (4000, 4)
    assert not math.isclose(float(drawn.gamma[0, 0]), float(drawn.gamma[0, 1]))


def test_the_global_seed_repeats_it_and_calls_differ(stored):
    to_input = DeviceInput("zscore", Strengths())
    torch.manual_seed(1)
    first, second = to_input(stored), to_input(stored)
    torch.manual_seed(1)
    assert torch.equal(to_input(stored), first)
    assert not torch.equal(first, second)


def test_the_stored_batch_is_not_changed_and_autocast_has_no_effect(stored):
    before = stored.clone()
    torch.manual_seed(1)
    first = DeviceInput("zscore", Strengths())(stored)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(DeviceInput("zscore", Strengths())(stored), first)
    assert torch.equal(stored, before)


def test_both_ways_agree_without_augmentation_and_leave_evaluation_alone(tmp_path):
    volumes = PreparedVolumes(make_prepared(tmp_path, count=2))
    before = [item[0] for item in volumes]
    found = {}
    for where in ("loader", "device"):
        data, to_input = training_input(volumes, where, augment=False)
        found[where] = [to_input(torch.as_tensor(data[index][0])[None])[0] for index in range(2)]
        augmented, to_input = training_input(volumes, where, augment=True)
        assert not torch.allclose(to_input(augmented[0][0][None])[0], before[0])
    for one, other, plain in zip(found["loader"], found["device"], before, strict=True):
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(one, plain)
    assert volumes.stored()[0][0].dtype == torch.uint8
    assert all(torch.equal(item[0], plain) for item, plain in zip(volumes, before, strict=True))
