"""Augmentation changes training volumes reproducibly and keeps background at 0."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from util.data.augment import make_augmentation
from util.data.dataset import PreparedVolumes
from util.data.folder import CONTRASTS, volume_path

OFF = {"scale": 0.0, "degrees": 0.0, "translation": 0.0, "flip_probability": 0.0, "noise": 0.0, "log_gamma": 0.0}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def volume() -> torch.Tensor:
    """A bright, uneven box in air, (4, 16, 16, 16)."""
    volume = torch.zeros(4, 16, 16, 16)
    volume[:, 4:12, 5:11, 3:12] = 0.3 + 0.5 * torch.rand(4, 8, 6, 9, generator=torch.Generator().manual_seed(0))
    return volume


def test_everything_off_is_the_identity(volume):
    torch.testing.assert_close(make_augmentation(**OFF)(volume), volume)


@pytest.mark.parametrize(
    "part",
    [
        {"scale": 0.1},
        {"degrees": 10.0},
        {"translation": 3.0},
        {"flip_probability": 1.0},
        {"noise": 0.1},
        {"log_gamma": 0.3},
    ],
    ids=lambda part: next(iter(part)),
)
def test_each_part_has_an_effect(volume, part):
    assert not torch.allclose(make_augmentation(**(OFF | part))(volume), volume)


def test_calls_differ_and_the_global_seed_repeats_them(volume):
    augment = make_augmentation()
    torch.manual_seed(1)
    first, second = augment(volume), augment(volume)
    torch.manual_seed(1)
    assert not torch.equal(first, second)
    torch.testing.assert_close(augment(volume), first, rtol=0, atol=0)


def test_background_stays_zero_and_range_is_kept(volume):
    augmented = make_augmentation(noise=0.3, translation=1)(volume)
    assert augmented.shape == volume.shape
    assert augmented.dtype == torch.float32
    assert augmented.min() == 0
    assert augmented.max() <= 1
    assert (augmented[:, 0] == 0).all()
    shaded = make_augmentation(**(OFF | {"noise": 0.5, "log_gamma": 0.3}))(volume)
    assert torch.equal(shaded > 0, volume > 0)  # noise turns no air into brain and no brain into air


def test_flip_exchanges_left_and_right_only(volume):
    flipped = make_augmentation(**(OFF | {"flip_probability": 1.0}))(volume)
    torch.testing.assert_close(flipped, volume.flip(-1))


def test_input_is_not_changed(volume):
    before = volume.clone()
    make_augmentation()(volume)
    assert torch.equal(volume, before)


def test_it_can_be_sent_to_a_spawned_worker(volume):
    assert pickle.loads(pickle.dumps(make_augmentation()))(volume).shape == volume.shape


@pytest.mark.parametrize("part", [{"scale": -0.1}, {"scale": 1.0}, {"noise": -1.0}, {"flip_probability": 1.5}])
def test_strengths_are_checked(part):
    with pytest.raises(ValueError, match="augmentation"):
        make_augmentation(**part)


def test_training_items_vary_and_test_items_do_not(tmp_path):
    generator = np.random.default_rng(0)
    for contrast in CONTRASTS:
        path = volume_path(tmp_path, "A", contrast)
        path.parent.mkdir()
        np.save(path, np.pad(generator.integers(1, 255, (8, 8, 8), dtype=np.uint8), 4))
    data = PreparedVolumes(tmp_path)
    train, test = data.subset(["A"], transform=make_augmentation()), data.subset(["A"])
    assert not torch.equal(train[0][0], train[0][0])
    assert torch.equal(test[0][0], test[0][0])


def test_loader_workers_draw_differently(volume):
    class Same(torch.utils.data.Dataset):
        augment = staticmethod(make_augmentation())

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return self.augment(volume)

    first, second = DataLoader(Same(), num_workers=2, multiprocessing_context="fork")
    assert not torch.equal(first, second)


def test_torchio_is_loaded_only_to_augment_in_the_loader():
    code = "import main_pretrain, main_cr_finetune, sys; print(*({'torchio', 'SimpleITK'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not loaded.strip()
