"""visualize_finetuned.py on a tiny run: maps of held-out subjects only, and the effect of every flag."""

import shutil

import numpy as np
import pytest
import torch

import vis.export.map_files
from tests.helpers.vis_cases import texts, tiny_classifier, write_finetune_run, write_prepared
from util import cli
from util.inference.open_run import open_run
from util.inference.probabilities import probabilities
from util.protocol.decision import Decision
from vis.maps.latent import latent_maps
from vis.visualize_finetuned import main

SUBJECTS = ["A", "B", "C", "D"]  # fold 0 holds out A and C, fold 1 B and D


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("finetuned")
    return write_finetune_run(root / "run", write_prepared(root / "data", SUBJECTS), SUBJECTS)


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


def show(run, *flags):
    main(["--run", str(run), "--device", "cpu", *flags])


@pytest.mark.parametrize(("fold", "held_out"), [(0, ["A", "C"]), (1, ["B", "D"])])
def test_default_subjects_are_held_out(run, tmp_path, fold, held_out):
    show(run, "--out", str(tmp_path), "--fold", str(fold), "--subjects", "2")
    assert sorted(path.name for path in tmp_path.iterdir()) == held_out


def test_training_subject_is_refused_before_anything_is_written(run, tmp_path):
    with pytest.raises(ValueError, match=r'fold 0 trained on "B".*pass --fold 1'):
        show(run, "--out", str(tmp_path / "out"), "--subjects", "A", "B")
    assert not (tmp_path / "out").exists()


def test_map_is_that_of_the_folds_model(run, tmp_path):
    show(run, "--out", str(tmp_path), "--fold", "1", "--subjects", "D", "--map", "max", "pca")
    opened = open_run(run, "finetune", fold=1, device="cpu")
    expected = latent_maps(opened.model, opened.batch(opened.study("D")), ["max"])["max"][0]
    np.testing.assert_allclose(np.load(tmp_path / "D" / "D_map-max.npy"), expected, atol=1e-6)
    assert (tmp_path / "D" / "D_map-pca.nii.gz").exists()


def test_figure_says_label_probability_and_fold(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(vis.export.map_files, "save_png", lambda path, figure: drawn.append(texts(figure)))
    show(run, "--out", str(tmp_path), "--fold", "1", "--subjects", "D")
    opened = open_run(run, "finetune", fold=1, device="cpu")
    with torch.no_grad():
        probability = opened.model(opened.batch(opened.study("D"))).softmax(-1)[0, 1].item()
    line = f"IDH mutant · predicted probability of IDH mutant {probability:.2f} · held out in fold 1"
    assert line in drawn[0]
    assert "D" in drawn[0]


def test_the_default_folder_names_the_fold(run):
    show(run, "--subjects", "A")
    assert (run / "vis" / "fold_0" / "A" / "A_map-max.nii.gz").exists()


def test_fidelity_flag_is_used(run, tmp_path):
    maps = []
    for fidelity in ("corrected", "paper"):
        show(run, "--out", str(tmp_path / fidelity), "--subjects", "A", "--fidelity", fidelity)
        maps.append(np.load(tmp_path / fidelity / "A" / "A_map-max.npy"))
    show(run, "--out", str(tmp_path / "own"), "--subjects", "A")
    np.testing.assert_array_equal(np.load(tmp_path / "own" / "A" / "A_map-max.npy"), maps[0])
    assert not np.allclose(maps[0], maps[1])


def test_checkpoint_flag_is_used(run, tmp_path):
    other = tiny_classifier(drop_path_rate=0.0)
    torch.nn.init.normal_(other.norm_f.weight)
    torch.save({"model": other.state_dict()}, tmp_path / "checkpoint-9.pth")
    show(run, "--out", str(tmp_path / "own"), "--subjects", "A")
    show(run, "--out", str(tmp_path / "given"), "--subjects", "A", "--checkpoint", str(tmp_path / "checkpoint-9.pth"))
    own, given = (np.load(tmp_path / place / "A" / "A_map-max.npy") for place in ("own", "given"))
    assert not np.allclose(own, given)


def maps(folder, name):
    return np.load(folder / "A" / f"A_map-{name}.npy")


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(vis.export.map_files, "save_png", lambda path, figure: None)
    for name in ("map_figure", "mosaic_figure"):
        monkeypatch.setattr(vis.export.map_files, name, lambda *_, **__: None)


@pytest.mark.usefixtures("no_pictures")
def test_every_option_of_class_specific_maps_has_an_effect(run, tmp_path, monkeypatch):
    def shown(place, *flags):
        show(run, "--out", str(tmp_path / place), "--subjects", "A", "--map", *flags)
        return tmp_path / place

    plain = shown("plain", "gradient", "integrated", "occlusion", "influence")
    opened = open_run(run, "finetune", fold=0, device="cpu")
    predicted = probabilities(opened.model, opened.batch(opened.study("A")))[0].argmax().item()
    same, other = (shown(f"target{t}", "gradient", "--target", str(t)) for t in (predicted, 1 - predicted))
    np.testing.assert_allclose(maps(same, "gradient"), maps(plain, "gradient"))
    np.testing.assert_allclose(maps(other, "gradient"), -maps(plain, "gradient"), atol=1e-6)
    monkeypatch.setattr("vis.maps.path_integral.DOUBLINGS", 0)  # otherwise the steps are doubled until the gap is small
    changed = {"gradient": ("--block", "0"), "integrated": ("--steps", "2"), "occlusion": ("--window", "2")}
    for name, flags in changed.items():
        assert not np.allclose(maps(shown(name, name, *flags), name), maps(plain, name), atol=1e-7)
    sizes = []
    monkeypatch.setattr(opened.model.__class__, "forward", record_batches(sizes, opened.model.__class__.forward))
    shown("batch", "occlusion", "--batch_size", "3")
    assert max(sizes) == 3


@pytest.mark.usefixtures("no_pictures")
def test_the_explained_class_is_the_decision_of_the_run(run, tmp_path):
    moved, found = tmp_path / "run", []
    shutil.copytree(run, moved)
    for threshold in (0.0, 1.0):  # all subjects are class 1, then none
        Decision(threshold=threshold).save(moved / "fold_0")
        show(moved, "--out", str(tmp_path / f"{threshold}"), "--subjects", "A", "--map", "gradient")
        found.append(maps(tmp_path / f"{threshold}", "gradient"))
    np.testing.assert_allclose(found[0], -found[1], atol=1e-6)


def record_batches(sizes, forward):
    def recorded(self, volume):
        sizes.append(len(volume))
        return forward(self, volume)

    return recorded


def test_mosaic_viewer_and_patient_space_are_optional(run, tmp_path):
    show(run, "--out", str(tmp_path / "more"), "--subjects", "A", "--mosaic", "--viewer")
    show(run, "--out", str(tmp_path / "less"), "--subjects", "A", "--space", "prepared")
    more, less = ({path.name for path in (tmp_path / place / "A").iterdir()} for place in ("more", "less"))
    assert more - less == {"A_map-max_mosaic.png", "A_map-max_patient.nii.gz", "A_viewer.html"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [(("--map", "gradient", "--target", "2"), "--target 2"), (("--map", "gradient", "--block", "7"), "--block 7")],
)
def test_bad_values_name_the_flag(run, tmp_path, flags, words):
    with pytest.raises(ValueError, match=words):
        show(run, "--out", str(tmp_path), "--subjects", "A", *flags)


def test_unknown_map_is_refused_with_a_hint(run, capsys):
    with pytest.raises(SystemExit):
        show(run, "--map", "occlusoin")
    assert 'did you mean "occlusion"' in capsys.readouterr().err
