"""Files of a latent map: tokens as .npy, voxels as NIfTI in the place of the volume, a figure."""

import nibabel
import numpy as np
import pytest
import torch

from tests.helpers.vis_cases import AFFINE, ORIGINAL_SHAPE, TO_PREPARED, manifest_row, write_prepared
from util.cli import Parser
from util.inference.study import Study
from vis.export.map_files import add_options, spaces, write_map
from vis.export.patient_space import PatientSpace
from vis.maps.latent import MAPS


@pytest.fixture
def study():
    volume = np.zeros((1, 16, 24, 16), np.float32)
    volume[:, 4:12, 4:20, 4:12] = np.random.default_rng(0).normal(size=(1, 8, 16, 8))
    return Study("S", ("t1",), volume)


@pytest.mark.parametrize("how", ["nearest", "trilinear"])
def test_map_is_written_on_tokens_and_on_voxels(tmp_path, study, how):
    tokens = torch.arange(12.0).reshape(2, 3, 2)
    write_map(tmp_path, study, AFFINE, "max", tokens, upsampling=how, subtitle="how")
    written = sorted(path.name for path in (tmp_path / "S").iterdir())
    assert written == ["S_map-max.nii.gz", "S_map-max.npy", "S_map-max.png"]
    np.testing.assert_array_equal(np.load(tmp_path / "S" / "S_map-max.npy"), tokens.numpy())
    image = nibabel.load(tmp_path / "S" / "S_map-max.nii.gz")
    values = np.asanyarray(image.dataobj).transpose(2, 1, 0)
    assert values.dtype == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    expected = tokens.numpy().repeat(8, 0).repeat(8, 1).repeat(8, 2)
    assert np.array_equal(values, expected) == (how == "nearest")


def test_subject_with_dots_keeps_its_whole_name(tmp_path, study):
    dotted = Study("S.01.v2", study.contrasts, study.volume_CZYX)
    write_map(tmp_path, dotted, AFFINE, "max", torch.ones(2, 3, 2), upsampling="nearest", subtitle="")
    assert (tmp_path / "S.01.v2" / "S.01.v2_map-max.nii.gz").exists()


def test_options_offer_every_map():
    parser = Parser()
    add_options(parser)
    assert parser.parse_args(["--map", *MAPS]).map == list(MAPS)
    with pytest.raises(SystemExit):
        parser.parse_args(["--map", "median"])


def test_patients_grid_is_written_beside_the_prepared_one(tmp_path, study):
    tokens, space = torch.arange(12.0).reshape(2, 3, 2), PatientSpace.of(manifest_row("S", AFFINE))
    write_map(tmp_path, study, AFFINE, "pca", tokens, upsampling="nearest", subtitle="", space=space, mosaic=True)
    written = {path.name.removeprefix("S_map-pca") for path in (tmp_path / "S").iterdir()}
    assert written == {".nii.gz", ".npy", ".png", "_patient.nii.gz", "_mosaic.png"}
    image = nibabel.load(tmp_path / "S" / "S_map-pca_patient.nii.gz")
    assert list(image.shape) == ORIGINAL_SHAPE
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE @ TO_PREPARED, atol=1e-5)
    prepared = np.asanyarray(nibabel.load(tmp_path / "S" / "S_map-pca.nii.gz").dataobj)
    np.testing.assert_allclose(np.asanyarray(image.dataobj)[::-1, 3:], prepared, atol=1e-5)


def test_spaces_come_from_the_manifest_unless_unwanted(tmp_path, caplog):
    root = write_prepared(tmp_path, ["A", "B"])
    assert set(spaces(root, "patient")) == {"A", "B"}
    assert spaces(root, "prepared") == {}
    (root / "manifest.csv").unlink()
    assert spaces(root, "patient") == {}
    assert "no manifest.csv" in caplog.text
