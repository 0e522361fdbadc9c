"""PreparedVolumes: normalisation per contrast, use of the transform, and no read before it is needed."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import util.data.dataset as dataset_module
from util.data.dataset import PreparedVolumes
from util.data.folder import CONTRASTS, segmentation_path, volume_path
from util.data.manifest import ManifestRow, write_manifest

SIZE = (8, 10, 12)


def write_volume(root: Path, subject: str, contrast: str, volume: np.ndarray) -> None:
    path = volume_path(root, subject, contrast)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, volume)


def write_subject(root: Path, subject: str, seed: int = 0) -> None:
    """A box of brain whose contrasts have very different means, in air."""
    generator = np.random.default_rng(seed)
    for position, contrast in enumerate(CONTRASTS):
        volume = np.zeros(SIZE, np.uint8)
        volume[2:6, 2:8, 3:9] = generator.integers(20 + 40 * position, 60 + 40 * position, (4, 6, 6))
        write_volume(root, subject, contrast, volume)


@pytest.fixture
def root(tmp_path) -> Path:
    for seed, subject in enumerate(["C", "A", "B"]):
        write_subject(tmp_path, subject, seed)
    return tmp_path


def row(subject: str, affine: np.ndarray) -> ManifestRow:
    return ManifestRow(
        subject=subject,
        sources={},
        original_shape=[1, 1, 1],
        original_affine=np.eye(4).tolist(),
        orientation="RAS",
        crop=[],
        affine=affine.tolist(),
        window={},
        contrasts=list(CONTRASTS),
        checksum={},
        warnings=[],
        settings={},
    )


def test_hand_made_folder_gives_subjects_size_and_channels(root):
    data = PreparedVolumes(root, normalize="range")
    assert data.subjects == ["A", "B", "C"]
    assert data.size == SIZE
    volume, label = data[1]
    assert volume.dtype == torch.float32
    assert volume.shape == (4, *SIZE)
    assert label == -1
    for channel, contrast in enumerate(CONTRASTS):
        stored = np.load(volume_path(root, "B", contrast))
        torch.testing.assert_close(volume[channel] * 255, torch.from_numpy(stored).float())
    np.testing.assert_array_equal(data.affine("A"), np.eye(4))


def test_zscore_is_per_contrast_over_the_brain(root):
    volume, _ = PreparedVolumes(root)[0]
    brain = torch.from_numpy(PreparedVolumes(root).stored_volume("A")).amax(0) > 0
    for contrast in volume:
        assert contrast[brain].mean().abs() < 1e-5
        assert contrast[brain].std(correction=0) == pytest.approx(1, abs=1e-4)
        assert (contrast[~brain] == 0).all()


def test_joint_zscore_is_the_papers(root):
    volume, _ = PreparedVolumes(root, normalize="zscore-joint")[0]
    assert volume.mean().abs() < 1e-5
    assert volume.std(correction=0) == pytest.approx(1, abs=1e-4)
    assert volume[3].max() - volume[0].max() > 1  # contrasts keep their offsets
    assert volume.unique().numel() > 4


def test_constant_contrast_gives_zeros_not_nan(root):
    write_volume(root, "A", "t2", np.zeros(SIZE, np.uint8))
    volume, _ = PreparedVolumes(root)[0]
    assert (volume[1] == 0).all()
    assert volume.isfinite().all()


def test_subset_really_uses_its_own_transform(root):
    calls = []

    def darken(volume):
        calls.append(volume)
        return volume * 0

    data = PreparedVolumes(root, transform=darken)
    train = data.subset(["A", "B"], transform=darken)
    test = data.subset(["C"])
    assert (train[0][0] == 0).all()
    assert len(calls) == 1
    assert (test[0][0] != 0).any()
    assert len(calls) == 1
    assert test.subjects == ["C"]


def test_a_subset_opens_no_file(root, monkeypatch):
    data = PreparedVolumes(root, labels={"A": 0, "B": 1, "C": -1})
    for name in ("find_subjects", "read_header", "read_manifest"):
        monkeypatch.setattr(dataset_module, name, lambda *args, **options: pytest.fail("a file was opened"))
    part = data.subset(["C", "A"], transform=lambda volume: volume * 0)
    assert (part.subjects, len(data), data.transform) == (["A", "C"], 3, None)
    assert (part[1][0] == 0).all()
    assert part[1][1] == -1


def test_transform_sees_zero_to_one_before_normalisation(root):
    seen = []
    PreparedVolumes(root, transform=lambda volume: seen.append(volume) or volume)[0]
    assert seen[0].min() == 0
    assert 0.5 < seen[0].max() <= 1


def test_labels_and_size_load_no_volume(root, monkeypatch):
    monkeypatch.setattr(dataset_module, "normalize_volume", None)
    monkeypatch.setattr(PreparedVolumes, "stored_volume", lambda *_: pytest.fail("a volume was loaded"))
    data = PreparedVolumes(root, labels={"A": 0, "B": 1, "C": -1, "other": 1})
    assert data.size == SIZE
    assert data.labels is not None
    assert [data.labels[subject] for subject in data.subjects] == [0, 1, -1]


def test_items_carry_their_label(root):
    data = PreparedVolumes(root, labels={"A": 0, "B": 1, "C": -1})
    assert [data[i][1] for i in range(3)] == [0, 1, -1]
    assert data.subset(["B"])[0][1] == 1
    with pytest.raises(ValueError, match=r'1 of 3 subjects have no label, the first is "B"'):
        PreparedVolumes(root, labels={"A": 0, "C": 1})


def test_segmentation_and_manifest_affine(root):
    affine = np.diag([2.0, 2, 2, 1])
    write_manifest(root, {name: row(name, affine) for name in "ABC"})
    segmentation = np.ones(SIZE, np.uint8)
    segmentation_path(root, "A").parent.mkdir()
    np.save(segmentation_path(root, "A"), segmentation)
    data = PreparedVolumes(root)
    np.testing.assert_array_equal(data.affine("B"), affine)
    np.testing.assert_array_equal(data.segmentation("A"), segmentation)
    assert data.segmentation("B") is None


def test_manifest_and_files_must_agree(root):
    write_manifest(root, {name: row(name, np.eye(4)) for name in "AB"})
    with pytest.raises(ValueError, match=r'"C" has files .* no row in manifest'):
        PreparedVolumes(root)
    write_manifest(root, {name: row(name, np.eye(4)) for name in "ABCD"})
    with pytest.raises(ValueError, match='lists "D" but its files are missing'):
        PreparedVolumes(root)


def test_missing_contrast_names_the_file(root):
    volume_path(root, "B", "flair").unlink()
    with pytest.raises(ValueError, match=r'"B" has no flair: .*B_flair\.npy is missing'):
        PreparedVolumes(root)
    assert len(PreparedVolumes(root, contrasts=["t1", "t2"])) == 3


def test_damaged_files_are_named(root):
    path = volume_path(root, "B", "t2")
    good = path.read_bytes()
    np.save(path, np.zeros(SIZE, np.float32))
    with pytest.raises(ValueError, match=r"B_t2\.npy holds float32"):
        PreparedVolumes(root)
    np.save(path, np.zeros((9, 10, 12), np.uint8))
    with pytest.raises(ValueError, match=r"B_t2\.npy is \(9, 10, 12\) voxels but"):
        PreparedVolumes(root)
    path.write_bytes(good[:-100])
    with pytest.raises(ValueError, match=r"B_t2\.npy is not a readable"):
        PreparedVolumes(root)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"B_t2\.npy is not a readable"):
        PreparedVolumes(root)


def test_badly_named_file_and_empty_folder(root, tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        PreparedVolumes(root / "nowhere")
    with pytest.raises(ValueError, match=r"t1 is missing: a prepared folder"):
        PreparedVolumes(root / "t1")
    volume_path(root, "A", "t1").rename(root / "t1" / "A.npy")
    with pytest.raises(ValueError, match=r"A\.npy should be named NAME_t1\.npy"):
        PreparedVolumes(root)


def test_subjects_are_checked(root):
    with pytest.raises(ValueError, match='"A" is listed twice'):
        PreparedVolumes(root, subjects=["A", "A"])
    with pytest.raises(ValueError, match='"X" is not among the 3'):
        PreparedVolumes(root, subjects=["A", "X"])
    with pytest.raises(ValueError, match='"C" is not among the 2'):
        PreparedVolumes(root, subjects=["A", "B"]).subset(["C"])
    with pytest.raises(ValueError, match="no subject"):
        PreparedVolumes(root, subjects=[])


def test_options_are_checked(root):
    with pytest.raises(ValueError, match="contrasts are"):
        PreparedVolumes(root, contrasts=["t1", "T2"])
    with pytest.raises(ValueError, match="choose one of zscore"):
        PreparedVolumes(root, normalize="z-score")  # pyright: ignore[reportArgumentType]


def test_a_run_records_how_its_volumes_were_prepared(root):
    described = PreparedVolumes(root).facts()
    assert described["preparation"] is None  # made by hand, nobody knows
    rows = {name: dataclasses.replace(row(name, np.eye(4)), settings={"size": [8, 8, 8]}) for name in ("A", "B", "C")}
    write_manifest(root, rows)
    assert PreparedVolumes(root).facts()["preparation"] == {"size": [8, 8, 8]}
