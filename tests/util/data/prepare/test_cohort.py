"""Preparing a cohort: faulty subjects are left out and listed, a second run repeats nothing, changed settings are
detected."""

import hashlib

import numpy as np
import pytest

import util.data.prepare.cohort as batch
from tests.helpers.raw_studies import SHAPE, brain_volume, write_nifti, write_study
from util.data.dataset import PreparedVolumes
from util.data.folder import CONTRASTS, volume_path
from util.data.manifest import read_manifest
from util.data.prepare.cohort import prepare_cohort
from util.data.prepare.study import Settings
from util.data.raw.layouts import find_brats

SMALL = Settings(size=(16, 16, 16))


@pytest.fixture
def source(tmp_path):
    for seed, subject in enumerate("ABC"):
        write_study(tmp_path / "raw", subject, seg=subject != "C", seed=seed)
    return tmp_path / "raw"


@pytest.fixture
def target(tmp_path):
    return tmp_path / "prepared"


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Pictures have tests of their own and take longer than all the rest."""
    monkeypatch.setattr(batch, "qc_picture", lambda *_: b"png")


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_folder_is_complete_and_loads(source, target):
    assert prepare_cohort(find_brats(source), target, SMALL) == {}
    expected = [f"{contrast}/{subject}_{contrast}.npy" for contrast in CONTRASTS for subject in "ABC"]
    expected += ["seg_mask/A_seg.npy", "seg_mask/B_seg.npy", "manifest.csv", "qc/A.png", "qc/B.png", "qc/C.png"]
    assert files_below(target) == sorted(expected)
    data = PreparedVolumes(target)
    assert data.subjects == ["A", "B", "C"]
    assert data.size == (16, 16, 16)
    assert data.segmentation("A") is not None
    assert data.segmentation("C") is None


def test_manifest_records_the_preparation(source, target):
    prepare_cohort(find_brats(source), target, SMALL)
    row = read_manifest(target)["A"]
    assert row.sources["flair"] == str((source / "A" / "A_flair.nii.gz").resolve())
    assert row.original_shape == list(SHAPE)
    assert row.orientation == "LPS"
    assert row.settings == {"size": [16, 16, 16], "percentiles": [0.5, 99.5], "margin": 1}
    assert row.contrasts == list(CONTRASTS)
    assert set(row.window) == set(CONTRASTS)
    for name, digest in row.checksum.items():
        assert hashlib.sha256((target / name).read_bytes()).hexdigest() == digest
    assert len(row.checksum) == 5
    np.testing.assert_array_equal(PreparedVolumes(target).affine("A"), row.prepared_affine)


def test_bad_subject_is_left_out_and_the_others_kept(source, target):
    write_nifti(source / "B" / "B_t2.nii.gz", np.zeros(SHAPE, np.int16))
    (source / "D").mkdir()
    (source / "D" / "D_t1.nii.gz").write_bytes(b"")
    failures = prepare_cohort(find_brats(source), target, SMALL)
    assert sorted(failures) == ["B", "D"]
    assert "B_t2.nii.gz is empty" in failures["B"]
    assert "no t2, t1ce, flair beside" in failures["D"]
    assert not [name for name in files_below(target) if "B" in name or "D" in name]
    assert PreparedVolumes(target).subjects == ["A", "C"]


def test_second_run_repeats_only_what_is_needed(source, target, monkeypatch):
    prepare_cohort(find_brats(source), target, SMALL)
    prepared = []
    original = batch.prepare_study

    def noted(study, settings):
        prepared.append(study.subject)
        return original(study, settings)

    monkeypatch.setattr(batch, "prepare_study", noted)

    def again():
        prepared.clear()
        assert prepare_cohort(find_brats(source), target, SMALL) == {}
        return prepared

    assert again() == []
    volume_path(target, "B", "t2").unlink()
    assert again() == ["B"]
    path = volume_path(target, "A", "t1")
    path.write_bytes(path.read_bytes()[:-10])
    assert again() == ["A"]
    write_study(source, "D", seed=4)
    assert again() == ["D"]
    write_nifti(source / "C" / "C_flair.nii.gz", brain_volume(99))
    assert again() == ["C"]
    assert again() == []
    prepare_cohort(find_brats(source), target, SMALL, overwrite=True)
    assert prepared == ["A", "B", "C", "D"]


def test_changed_settings_need_overwrite(source, target):
    prepare_cohort(find_brats(source), target, SMALL)
    larger = Settings(size=(24, 24, 24))
    with pytest.raises(ValueError, match=r"--size was \[16, 16, 16\], is \[24, 24, 24\].*use --overwrite"):
        prepare_cohort(find_brats(source), target, larger)
    assert PreparedVolumes(target).size == (16, 16, 16)
    assert prepare_cohort(find_brats(source), target, larger, overwrite=True) == {}
    assert PreparedVolumes(target).size == (24, 24, 24)


def test_overwrite_never_mixes_settings(source, target):
    prepare_cohort(find_brats(source), target, SMALL)
    larger = Settings(size=(24, 24, 24))
    with pytest.raises(ValueError, match='holds "C", prepared with other settings'):
        prepare_cohort(find_brats(source)[:2], target, larger, overwrite=True)
    write_nifti(source / "B" / "B_t2.nii.gz", np.zeros(SHAPE, np.int16))
    assert list(prepare_cohort(find_brats(source), target, larger, overwrite=True)) == ["B"]
    data = PreparedVolumes(target)
    assert data.subjects == ["A", "C"]
    assert data.size == (24, 24, 24)


def test_killed_run_is_continued(source, target, monkeypatch):
    original = batch.prepare_study

    def killed_at_c(study, settings):
        if study.subject == "C":
            raise KeyboardInterrupt
        return original(study, settings)

    with monkeypatch.context() as patch:
        patch.setattr(batch, "prepare_study", killed_at_c)
        with pytest.raises(KeyboardInterrupt):
            prepare_cohort(find_brats(source), target, SMALL)
    assert PreparedVolumes(target).subjects == ["A", "B"]
    assert not list(target.rglob("*.tmp"))
    assert prepare_cohort(find_brats(source), target, SMALL) == {}
    assert PreparedVolumes(target).subjects == ["A", "B", "C"]


def test_a_removed_segmentation_is_deleted(source, target):
    prepare_cohort(find_brats(source), target, SMALL)
    (source / "A" / "A_seg.nii.gz").unlink()
    prepare_cohort(find_brats(source), target, SMALL)
    assert PreparedVolumes(target).segmentation("A") is None


def test_another_patient_of_the_same_name_is_refused(source, target, tmp_path):
    prepare_cohort(find_brats(source), target, SMALL)
    before = PreparedVolumes(target).stored_volume("A")
    write_study(tmp_path / "others", "A", seed=9)
    failures = prepare_cohort(find_brats(tmp_path / "others"), target, SMALL)
    assert "holds a subject of this name prepared from" in failures["A"]
    np.testing.assert_array_equal(PreparedVolumes(target).stored_volume("A"), before)
    assert prepare_cohort(find_brats(tmp_path / "others"), target, SMALL, overwrite=True) == {}
    assert not np.array_equal(PreparedVolumes(target).stored_volume("A"), before)


def test_raw_folder_may_move(source, target, tmp_path):
    prepare_cohort(find_brats(source), target, SMALL)
    source.rename(tmp_path / "moved")
    assert prepare_cohort(find_brats(tmp_path / "moved"), target, SMALL) == {}


def test_workers_give_the_same_files(source, target, tmp_path):
    prepare_cohort(find_brats(source), target, SMALL)
    prepare_cohort(find_brats(source), tmp_path / "parallel", SMALL, workers=2)
    for name in files_below(target):
        if name.endswith(".npy"):
            assert (target / name).read_bytes() == (tmp_path / "parallel" / name).read_bytes()
    assert (target / "manifest.csv").read_text() == (tmp_path / "parallel" / "manifest.csv").read_text()


def test_a_long_run_writes_its_manifest_as_it_goes(source, target, monkeypatch):
    """What a killed run has prepared is known to the next one."""
    seen = []
    write = batch.write_manifest
    monkeypatch.setattr(batch, "write_manifest", lambda folder, rows: (seen.append(sorted(rows)), write(folder, rows)))
    prepare_cohort(find_brats(source), target, SMALL)
    assert seen == [["A", "B", "C"]]
    seen.clear()
    monkeypatch.setattr(batch, "MANIFEST_EVERY_S", -1)
    prepare_cohort(find_brats(source), target, SMALL, overwrite=True)
    assert [len(rows) for rows in seen] == [3, 3, 3, 3]
    (target / "manifest.csv").unlink()
    seen.clear()
    prepare_cohort(find_brats(source), target, SMALL, overwrite=True)
    assert seen == [["A"], ["A", "B"], ["A", "B", "C"], ["A", "B", "C"]]
