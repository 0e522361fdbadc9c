"""Maps of a new patient: mean over folds, in patient space, with figures and a viewer."""

import dataclasses

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers.raw_studies import AFFINE, SHAPE, brain_volume, write_nifti
from tests.helpers.vis_cases import SIZE, texts, write_finetune_run, write_prepared
from util.data.folder import CONTRASTS
from util.data.prepare.study import Settings, prepare_study
from util.data.raw.layouts import RawStudy
from util.inference.ensemble import open_ensemble
from vis.export.patient_maps import PatientMaps, displayed_study, write_patient_maps
from vis.maps.fold_mean import mean_maps

SUBJECTS = ["A", "B", "C", "D"]


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    return open_ensemble(
        write_finetune_run(root / "run", write_prepared(root / "data", SUBJECTS), SUBJECTS), torch.device("cpu")
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    files = {
        name: write_nifti(folder / f"{name}.nii.gz", brain_volume(position)) for position, name in enumerate(CONTRASTS)
    }
    return prepare_study(RawStudy("P", files), Settings(size=SIZE))


def test_maps_are_written_in_patient_space_with_captions(tmp_path, ensemble, prepared):
    volume = ensemble.model_input(prepared)
    maps = write_patient_maps(tmp_path, "P", prepared, ensemble, volume, ["max", "integrated"], target=1)
    assert maps.files == {name: f"P_IDH_map-{name}.nii.gz" for name in ("max", "integrated")}
    assert {path.name for path in tmp_path.iterdir()} == {*maps.files.values(), "P_IDH_viewer.html"}
    image = nibabel.load(tmp_path / maps.files["max"])
    assert image.shape == SHAPE
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    mean = mean_maps(ensemble.models.values(), volume, ["max"], 1)["max"].values_zyx
    assert np.asarray(image.dataobj).max() == pytest.approx(float(mean.max()), rel=0.05)
    captions = [caption for caption, _ in maps.pictures]
    assert captions[0] == "IDH: maximum over features, mean of 2 folds"
    assert captions[1].startswith("IDH: integrated gradients, for IDH mutant, mean of 2 folds; completeness gap")
    assert captions[1].endswith(", worst fold")
    assert list(maps.completeness) == ["integrated"]
    assert captions[0] in texts(maps.pictures[0][1])
    assert "IDH: predicted IDH mutant; mean of 2 folds" in (tmp_path / "P_IDH_viewer.html").read_text()


def test_without_maps_nothing_is_computed_or_written(tmp_path, ensemble, prepared):
    maps = write_patient_maps(tmp_path, "P", prepared, ensemble, torch.empty(0), [], target=1)
    assert maps == PatientMaps()
    assert list(tmp_path.iterdir()) == []


def test_figures_show_the_available_contrasts(ensemble, prepared):
    volume = ensemble.model_input(prepared)
    assert displayed_study("P", prepared, ensemble, volume).contrasts == CONTRASTS
    without_t2 = {name: values for name, values in prepared.volumes.items() if name != "t2"}
    study = displayed_study("P", dataclasses.replace(prepared, volumes=without_t2), ensemble, volume)
    assert study.contrasts == ("t1", "t1ce", "flair")
    np.testing.assert_array_equal(study.volume_CZYX[1], volume[0, 2])
