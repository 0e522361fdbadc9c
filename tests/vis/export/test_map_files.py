"""Files of maps: tokens as .npy, voxels as NIfTI at the position of the volume, a figure."""

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from tests.helpers.vis_cases import AFFINE, ORIGINAL_SHAPE, TO_PREPARED, manifest_row, write_prepared
from util.inference.study import Study
from vis.export import map_files
from vis.export.map_files import MapWriter, requested_spaces
from vis.export.patient_space import PatientSpace


@pytest.fixture
def study():
    volume = np.zeros((1, 16, 24, 16), np.float32)
    volume[:, 4:12, 4:20, 4:12] = np.random.default_rng(0).normal(size=(1, 8, 16, 8))
    return Study("S", ("t1",), volume)


@pytest.mark.parametrize("how", ["nearest", "trilinear"])
def test_map_is_written_on_tokens_and_on_voxels(tmp_path, study, how):
    tokens = torch.arange(12.0).reshape(2, 3, 2)
    MapWriter(tmp_path, how).write(study, AFFINE, {"max": tokens}, subtitle="how")
    written = sorted(path.name for path in (tmp_path / "S").iterdir())
    assert written == ["S_map-max.nii.gz", "S_map-max.npy", "S_map-max.png"]
    np.testing.assert_array_equal(np.load(tmp_path / "S" / "S_map-max.npy"), tokens.numpy())
    image = nibabel.load(tmp_path / "S" / "S_map-max.nii.gz")
    values = np.asanyarray(image.dataobj).transpose(2, 1, 0)
    assert values.dtype == np.float32
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
    expected = tokens.numpy().repeat(8, 0).repeat(8, 1).repeat(8, 2)
    assert np.array_equal(values, expected) == (how == "nearest")


def test_a_subject_name_with_dots_stays_complete(tmp_path, study):
    dotted = Study("S.01.v2", study.contrasts, study.volume_CZYX)
    MapWriter(tmp_path).write(dotted, AFFINE, {"max": torch.ones(2, 3, 2)}, subtitle="")
    assert (tmp_path / "S.01.v2" / "S.01.v2_map-max.nii.gz").exists()


def test_maps_are_also_written_in_patient_space(tmp_path, study):
    tokens, space = torch.arange(12.0).reshape(2, 3, 2), PatientSpace.of(manifest_row("S", AFFINE))
    MapWriter(tmp_path, spaces={"S": space}, mosaic=True).write(study, AFFINE, {"pca": tokens}, subtitle="")
    written = {path.name.removeprefix("S_map-pca") for path in (tmp_path / "S").iterdir()}
    assert written == {".nii.gz", ".npy", ".png", "_patient.nii.gz", "_mosaic.png"}
    image = nibabel.load(tmp_path / "S" / "S_map-pca_patient.nii.gz")
    assert list(image.shape) == ORIGINAL_SHAPE
    assert image.get_data_dtype() == np.float32
    np.testing.assert_allclose(image.affine, AFFINE @ TO_PREPARED, atol=1e-5)
    prepared = np.asanyarray(nibabel.load(tmp_path / "S" / "S_map-pca.nii.gz").dataobj)
    np.testing.assert_allclose(np.asanyarray(image.dataobj)[::-1, 3:], prepared, atol=1e-5)


def test_patient_spaces_come_from_the_manifest_if_requested(tmp_path, caplog):
    root = write_prepared(tmp_path, ["A", "B"])
    assert set(requested_spaces(root, "patient")) == {"A", "B"}
    assert requested_spaces(root, "prepared") == {}
    (root / "manifest.csv").unlink()
    assert requested_spaces(root, "patient") == {}
    assert "no manifest.csv" in caplog.text


@pytest.mark.parametrize("has_mask", [False, True])
def test_row_labels_fit_on_the_page(tmp_path, study, monkeypatch, has_mask):
    figures, mask = [], (study.volume_CZYX[0] > 1).astype(np.uint8) if has_mask else None
    monkeypatch.setattr(map_files, "save_png", lambda path, figure: figures.append(figure))
    MapWriter(tmp_path).write(
        Study("S", study.contrasts, study.volume_CZYX, mask), AFFINE, {"max": torch.ones(2, 3, 2)}, subtitle=""
    )
    FigureCanvasAgg(figures[0]).draw()
    labels = [axes.yaxis.label for axes in figures[0].axes if "centre" in axes.get_ylabel()]
    assert len(labels) == 3
    assert min(label.get_window_extent().x0 for label in labels) >= 0


def test_notes_are_in_the_subtitle_and_the_viewer_is_optional(tmp_path, study, monkeypatch):
    subtitles, figure = [], map_files.map_figure
    monkeypatch.setattr(map_files, "map_figure", lambda *_, subtitle, **rest: (
        subtitles.append(subtitle) or figure(*_, subtitle=subtitle, **rest)))  # fmt: skip
    maps = {"max": torch.ones(2, 3, 2), "norm": torch.ones(2, 3, 2)}
    MapWriter(tmp_path, viewer=True).write(study, AFFINE, maps, subtitle="how", notes={"norm": "gap 1%"})
    assert subtitles == ["how", "how · gap 1%"]
    assert "gap 1%" in (tmp_path / "S" / "S_viewer.html").read_text()
    MapWriter(tmp_path / "plain").write(study, AFFINE, maps, subtitle="how")
    assert not (tmp_path / "plain" / "S" / "S_viewer.html").exists()
