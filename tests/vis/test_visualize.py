"""visualize.py on a tiny run: its files, and the effect of every flag."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import vis.export.map_files
import vis.visualize
from tests.helpers.vis_cases import AFFINE, write_autoregressive_run, write_prepared, write_pretrain_run
from util import cli
from util.data.folder import CONTRASTS
from util.inference.open_run import open_run
from vis.visualize import main

VIS = Path(__file__).resolve().parents[2] / "vis"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("visualize")
    data = write_prepared(root / "data", ["A", "B", "C"])
    write_prepared(root / "other", ["X"])
    return write_pretrain_run(root / "run", data, norm_pix_loss=True)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures, the slow part, are drawn in one test only."""
    for module in (vis.visualize, vis.export.map_files):
        monkeypatch.setattr(module, "save_png", lambda path, figure: None)
    for name in ("reconstruction_figure", "ratio_figure"):
        monkeypatch.setattr(vis.visualize, name, lambda *_, **__: None)
    monkeypatch.setattr(vis.export.map_files, "map_figure", lambda *_, **__: None)


@pytest.fixture
def show(run, tmp_path):
    """Run the program, return the output folder."""

    def show(name, *flags):
        main(["--run", str(run), "--out", str(tmp_path / name), "--device", "cpu", "--subjects", "A", *flags])
        return tmp_path / name

    return show


def prediction(folder, subject="A"):
    return np.load(folder / subject / f"{subject}_prediction.npy")


def removed(folder):
    return load(folder, "A_removed.nii.gz")


def load(folder, name):
    return np.asanyarray(nibabel.load(folder / "A" / name).dataobj)


def test_all_files_are_on_the_grid_of_the_volume(show):
    folder = show("out", "--map", "max", "norm", "pca")
    names = {path.name for path in (folder / "A").iterdir()}
    maps = {f"A_map-{name}{suffix}" for name in ("max", "norm", "pca") for suffix in (".npy", ".nii.gz", ".png")}
    patient = {f"A_map-{name}_patient.nii.gz" for name in ("max", "norm", "pca")}
    images = {f"A_{contrast}_{kind}.nii.gz" for contrast in CONTRASTS for kind in ("input", "reconstruction")}
    assert names == maps | patient | images | {
        "A_prediction.npy",
        "A_removed.nii.gz",
        "A_reconstruction.png",
        "A_ratios.png",
    }
    for path in {*(folder / "A").glob("*.nii.gz")} - {folder / "A" / name for name in patient}:
        image = nibabel.load(path)
        assert image.get_data_dtype() == np.float32
        np.testing.assert_allclose(image.affine, AFFINE, atol=1e-6)
        assert image.shape == (16, 24, 16)
    seen, shown, gone = (load(folder, f"A_{what}.nii.gz") for what in ("t2_input", "t2_reconstruction", "removed"))
    gone = gone > 0
    np.testing.assert_array_equal(shown[~gone], seen[~gone])
    np.testing.assert_array_equal(shown[gone], prediction(folder)[1].transpose(2, 1, 0)[gone])


@pytest.mark.usefixtures("no_pictures")
def test_mask_ratio_of_the_run_unless_given(show):
    assert removed(show("as_trained")).mean() == pytest.approx(0.5)
    assert removed(show("more", "--mask_ratio", "0.75")).mean() == pytest.approx(0.75)


@pytest.mark.usefixtures("no_pictures")
def test_reconstructions_at_several_mask_ratios(show, monkeypatch):
    shown = []
    monkeypatch.setattr(
        vis.visualize, "ratio_figure", lambda study, reconstructions, **_: shown.append(reconstructions)
    )
    show("default")
    show("two", "--ratios", "0.75", "0.5")
    show("none", "--ratios")
    assert [list(reconstructions) for reconstructions in shown] == [[0.25, 0.5, 0.75, 0.9], [0.75, 0.5]]
    few, many = (shown[1][ratio] for ratio in (0.5, 0.75))
    assert (few[1].mean(), many[1].mean()) == pytest.approx((0.5, 0.75))
    assert many[1][few[1]].all()  # nested
    np.testing.assert_array_equal(few[0][:, ~many[1]], many[0][:, ~many[1]])
    for wrong in ("0", "1", "0.99"):
        with pytest.raises(ValueError, match=f"--ratios {float(wrong)}: choose a value between 0 and 1"):
            show("wrong", "--ratios", wrong)


@pytest.mark.usefixtures("no_pictures")
def test_seed_checkpoint_and_data_change_what_is_shown(show, run):
    plain = show("plain")
    np.testing.assert_array_equal(prediction(show("again")), prediction(plain))
    assert not np.array_equal(removed(show("seed", "--seed", "1")), removed(plain))
    earlier = show("earlier", "--checkpoint", str(run / "checkpoint-0.pth"))
    assert not np.array_equal(prediction(earlier), prediction(plain))
    other = show("other", "--data", str(run.parent / "other"), "--subjects", "1")
    assert [path.name for path in other.iterdir()] == ["X"]


@pytest.mark.usefixtures("no_pictures")
def test_upsampling_changes_the_map(show):
    nearest, smooth = (load(show(how, "--upsample", how), "A_map-max.nii.gz") for how in ("nearest", "trilinear"))
    assert not np.array_equal(nearest, smooth)


@pytest.mark.usefixtures("no_pictures")
def test_fidelity_of_the_run_unless_given(show, caplog):
    plain = show("own")
    np.testing.assert_array_equal(prediction(show("same", "--fidelity", "corrected")), prediction(plain))
    with caplog.at_level("INFO", "util.inference.open_run"):
        paper = show("paper", "--fidelity", "paper")
    assert not np.array_equal(prediction(paper), prediction(plain))
    assert not np.array_equal(load(paper, "A_map-max.nii.gz"), load(plain, "A_map-max.nii.gz"))
    assert "was trained with fidelity corrected, shown with --fidelity paper" in caplog.text


@pytest.mark.usefixtures("no_pictures")
def test_several_subjects(show):
    assert sorted(path.name for path in show("some", "--subjects", "2").iterdir()) == ["A", "B"]


def test_unknown_subject_is_an_error_and_writes_nothing(show, tmp_path):
    with pytest.raises(ValueError, match='no "Z"'):
        show("none", "--subjects", "Z")
    assert not (tmp_path / "none").exists()


def test_an_autoregressive_run_is_shown_without_a_mask(run, tmp_path):
    ar_run = write_autoregressive_run(tmp_path / "ar", run.parent / "data", scan_order="hilbert")
    main(["--run", str(ar_run), "--out", str(tmp_path / "out"), "--device", "cpu", "--subjects", "A"])
    gone = load(tmp_path / "out", "A_removed.nii.gz")
    assert gone.sum() == gone.size - 8**3  # all but the first patch
    assert (tmp_path / "out" / "A" / "A_reconstruction.png").exists()
    assert (tmp_path / "out" / "A" / "A_map-max.nii.gz").exists()
    with pytest.raises(ValueError, match=r"--mask_ratio 0\.5.*autoregressive"):
        main(["--run", str(ar_run), "--device", "cpu", "--mask_ratio", "0.5"])
    assert not (tmp_path / "out" / "A" / "A_ratios.png").exists()
    with pytest.raises(ValueError, match=r"--ratios: .* autoregressive"):
        main(["--run", str(ar_run), "--device", "cpu", "--ratios", "0.5"])


@pytest.mark.slow
def test_program_starts_in_its_own_folder_and_writes_into_the_run(run):
    command = [sys.executable, "visualize.py", "--run", str(run), "--subjects", "1", "--device", "cpu"]
    done = subprocess.run(command, cwd=VIS, capture_output=True, text=True, check=False, env={**os.environ})
    assert done.returncode == 0, done.stderr
    assert (run / "vis" / "A" / "A_map-max.png").exists()
    assert str(run / "vis") in done.stderr
    assert done.stdout == ""


@pytest.mark.usefixtures("no_pictures")
def test_tokens_of_a_masked_encoder_are_averaged_over_masks_that_show_every_patch(show, run, monkeypatch):
    said = []
    monkeypatch.setattr(vis.visualize.MapWriter, "write", lambda *_, subtitle, **__: said.append(subtitle))
    show("all")
    show("masked", "--rounds", "3", "--mask_ratio", "0.75")
    assert "all patches visible" in said[0]
    assert "mean over 12 random masks, each patch visible in 3 to" in said[1]
    monkeypatch.undo()
    opened = open_run(run, "pretrain", device="cpu")
    study = opened.study("A")
    seen, masked = (vis.visualize.encoder_maps(opened, study, ["max"], -1, 0.75, n, 0)[0]["max"] for n in (0, 3))
    assert not np.allclose(seen, masked)
    for names, block, flag in ((["norm"], -1, "--map norm"), (["max"], 0, "--block 0")):
        with pytest.raises(ValueError, match=flag):
            vis.visualize.encoder_maps(opened, study, names, block, 0.75, 3, 0)


@pytest.mark.usefixtures("no_pictures")
def test_block_space_and_viewer_have_an_effect(show):
    plain, first = show("plain"), show("first", "--block", "0", "--space", "prepared", "--viewer")
    assert not np.array_equal(load(plain, "A_map-max.nii.gz"), load(first, "A_map-max.nii.gz"))
    assert (plain / "A" / "A_map-max_patient.nii.gz").exists()
    assert not (first / "A" / "A_map-max_patient.nii.gz").exists()
    assert (first / "A" / "A_viewer.html").exists()
    assert not (plain / "A" / "A_viewer.html").exists()


def test_map_of_a_class_needs_a_class(show):
    with pytest.raises(ValueError, match="--map gradient explains a class"):
        show("none", "--map", "gradient")
