"""Volumes that cannot be used: another subject stands in, always the same one, and is named at the end."""

import logging

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.helpers.prepared import make_prepared
from util.data.dataset import PreparedVolumes
from util.data.folder import BadVolume, volume_path
from util.data.stand_ins import StandIns, candidates, report_stand_ins

LABELS = {f"sub-{i:02d}": i % 2 for i in range(6)}


def vanish(path):
    path.unlink()


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def reshape(path):
    np.save(path, np.ones((8, 16, 16), np.uint8))


def retype(path):
    np.save(path, np.full((16, 16, 16), np.nan, np.float32))


def empty(path):
    path.write_bytes(b"")


def zero(path):
    """As after a crash of the file system: of full length, but for all contrasts nothing in it."""
    for contrast in ("t1", "t2", "t1ce", "flair"):
        np.save(path.parents[1] / contrast / path.name.replace("t1", contrast), np.zeros((16, 16, 16), np.uint8))


FAULTS = [vanish, truncate, reshape, retype, empty, zero]


@pytest.fixture
def root(tmp_path):
    return make_prepared(tmp_path, count=6, unknown=0)


def opened(root, on_bad_volume, **options):
    return PreparedVolumes(root, labels=LABELS, on_bad_volume=on_bad_volume, **options)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("is_stored", [True, False])
def test_stop_names_the_file(root, fault, is_stored):
    volumes = opened(root, "stop")
    fault(volume_path(root, "sub-02", "t1"))
    with pytest.raises(BadVolume, match=r"sub-02_t1\.npy"):
        (volumes.stored() if is_stored else volumes)[2]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("when", ["before", "after"])
def test_skip_takes_the_next_of_the_same_class(root, fault, when, caplog):
    if when == "after":
        volumes = opened(root, "skip")
    fault(volume_path(root, "sub-02", "t1"))
    if when == "before":
        volumes = opened(root, "skip")
    volume, label = volumes[2]
    torch.testing.assert_close(volume, volumes[4][0])
    assert label == LABELS["sub-04"] == LABELS["sub-02"]
    assert volumes.size == (16, 16, 16)
    assert volumes.stand_ins() == [("sub-02", "sub-04")]
    volumes[2]
    assert caplog.text.count('Subject "sub-04" stands in for "sub-02"') == 1
    assert "sub-02_t1.npy" in caplog.text


def test_stand_ins_of_a_subset_are_from_the_subset(root):
    vanish(volume_path(root, "sub-02", "flair"))
    part = opened(root, "skip").subset(["sub-01", "sub-02", "sub-03"])
    assert part[1][1] == 1  # the only ones of the part are of the other class
    assert part.stand_ins() == [("sub-02", "sub-03")]


def test_a_subset_has_the_size_of_all_volumes(root):
    for contrast in ("t1", "t2", "t1ce", "flair"):
        reshape(volume_path(root, "sub-02", contrast))
    part = opened(root, "skip").subset(["sub-02"])
    assert part.size == (16, 16, 16)
    with pytest.raises(BadVolume, match=r"is \(8, 16, 16\) voxels, expected \(16, 16, 16\)"):
        part[0]


def test_data_loading_processes_tell_the_main_one(root):
    volumes = opened(root, "skip").stored()
    reshape(volume_path(root, "sub-05", "t2"))
    labels = torch.cat([label for _, label in DataLoader(volumes, batch_size=2, num_workers=2)])
    assert labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert volumes.stand_ins() == [("sub-05", "sub-01")]


def test_no_usable_subject_is_an_error(root):
    volumes = opened(root, "skip", subjects=["sub-00", "sub-01"])
    for name in volumes.subjects:
        truncate(volume_path(root, name, "t1"))
    with pytest.raises(BadVolume, match=r"sub-00_t1\.npy .*no other subject of .* can be used in its place"):
        volumes[0]
    for name in LABELS:
        for contrast in ("t1", "t2", "t1ce", "flair"):
            empty(volume_path(root, name, contrast))
    with pytest.raises(BadVolume, match="none of the 6 subjects"):
        opened(root, "skip")


def test_candidates_are_everyone_else_once_the_same_class_first():
    labels = [0, 1, 0, 1, 1]
    assert list(candidates(1, labels)) == [3, 4, 2, 0]
    assert list(candidates(4, labels)) == [1, 3, 0, 2]


def test_news_is_told_once():
    found = StandIns(3)
    assert found.add(0, 2)
    assert not found.add(0, 2)
    assert found.add(0, 1)
    assert found.items() == [(0, 1)]


def test_report_names_each_pair_once_and_says_nothing_of_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        report_stand_ins([])
        assert not caplog.records
        report_stand_ins([("b", "c"), ("a", "c"), ("b", "c")])
    assert "2 of the training volumes could not be used" in caplog.text
    assert "a (by c), b (by c)" in caplog.text


def test_policy_is_checked(root):
    with pytest.raises(ValueError, match="choose one of stop, skip"):
        opened(root, "ignore")
