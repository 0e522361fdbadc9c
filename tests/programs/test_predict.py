"""predict.py with real runs: trained on EGD-like studies, patients in a layout that training did not have."""

import csv
import json
import shutil

import nibabel
import numpy as np
import openpyxl
import pytest

import main_cr_finetune
import predict
import prepare_data
from tests.helpers.prepared import TINY
from tests.helpers.raw_studies import AFFINE, SHAPE, brain_volume, write_nifti
from util import cli
from util.data.folder import CONTRASTS, LABEL_SHEET
from util.patient.who_2021 import IMPOSSIBLE

EGD = {"t1": "1_T1/NIFTI/T1", "t1ce": "2_T1GD/NIFTI/T1GD", "t2": "3_T2/NIFTI/T2", "flair": "4_FLAIR/NIFTI/FLAIR"}
BRATS_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
SUBJECTS = 14
FIRST_LINE = "Research use only, not a medical device."


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        patch.setattr(predict, "setup_logging", lambda *_: None)
        patch.setattr(prepare_data, "setup_logging", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """EGD's layout, prepared with settings of its own."""
    raw, out = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("prepared")
    book = openpyxl.Workbook()
    book.active.append(["Subject", "IDH", "1p19q", "Grade"])
    for index in range(SUBJECTS):
        name = f"EGD-{index:02d}"
        for position, contrast in enumerate(CONTRASTS):
            write_nifti(raw / name / f"{EGD[contrast]}.nii.gz", brain_volume(10 * index + position))
        book.active.append([name, index % 2, int(index % 4 == 1), 4])
    book.save(raw / LABEL_SHEET)
    prepare_data.main(["egd", str(raw), str(out), "--labels", str(raw / LABEL_SHEET), "--size", "16",
                       "--percentiles", "2", "98", "--margin", "2"])  # fmt: skip
    return out


def train(prepared, out, label_type, *options):
    main_cr_finetune.main(["--model", "vim_3d_tiny_patch8", "--data", str(prepared), "--batch_size", "4", "--epochs",
                           "1", "--lr", "1e-3", "--k_fold", "2", "--label_type", label_type, "--no_augment",
                           "--output_dir", str(out), *TINY, *options])  # fmt: skip
    return out


@pytest.fixture(scope="module")
def idh(prepared, tmp_path_factory):
    return train(prepared, tmp_path_factory.mktemp("idh"), "IDH")


@pytest.fixture(scope="module")
def codeletion(prepared, tmp_path_factory):
    """Trained with contrast dropout."""
    return train(prepared, tmp_path_factory.mktemp("1p19q"), "1p19q", "--contrast_dropout", "0.4")


def patient(root, name="BraTS-GLI-0001", contrasts=CONTRASTS, affine=AFFINE, change=lambda volume: volume):
    """The layout of BraTS 2023, with another orientation and voxel size than in training."""
    for contrast in contrasts:
        volume = change(brain_volume(1000 + CONTRASTS.index(contrast)))
        write_nifti(root / name / f"{name}-{BRATS_2023[contrast]}.nii.gz", volume, affine)
    return root / name


def run(tmp_path, *words):
    return predict.main([*map(str, words), "--output_dir", str(tmp_path / "out"), "--device", "cpu"])


def report(tmp_path, name="BraTS-GLI-0001"):
    return json.loads((tmp_path / "out" / name / "report.json").read_text())


def test_a_patient_with_a_layout_that_training_did_not_have(tmp_path, idh, codeletion, caplog):
    turned = np.array([[0, 0, 1.5, -12], [1.1, 0, 0, -9], [0, -0.9, 0, 40], [0, 0, 0, 1]])  # another orientation
    folder = patient(tmp_path, affine=turned)
    with caplog.at_level("INFO", "predict"):
        assert run(tmp_path, folder, "--run", idh, "--run", codeletion, "--map", "max", "norm") == 0
    facts = report(tmp_path)
    assert next(iter(facts.items())) == ("notice", FIRST_LINE)
    assert [found["label_type"] for found in facts["runs"]] == ["IDH", "1p19q"]
    for found in facts["runs"]:
        folds = list(found["by_fold"].values())
        assert len(folds) == 2
        assert found["probability"] == pytest.approx(np.mean(folds))
        assert found["sd_over_folds"] == pytest.approx(np.std(folds, ddof=1))
        assert found["novelty"]["n"] == SUBJECTS
        assert found["viewer"] == f"BraTS-GLI-0001_{found['label_type']}_viewer.html"
        assert FIRST_LINE in (tmp_path / "out" / "BraTS-GLI-0001" / found["viewer"]).read_text()
        for name in ("max", "norm"):
            image = nibabel.load(tmp_path / "out" / "BraTS-GLI-0001" / found["maps"][name])
            assert image.shape == SHAPE
            np.testing.assert_allclose(image.affine, turned, atol=1e-5)
            inside = np.asarray(image.dataobj)[8:12, 10:14, 7:11]
            assert np.ptp(np.asarray(image.dataobj)) > 0
            assert np.isfinite(inside).all()
    assert sum(facts["who_2021"]["probabilities"].values()) == pytest.approx(1)
    assert set(facts["seconds"]) == {"load models", "read and prepare", "predict", "compare with held-out subjects",
                                     "maps"}  # fmt: skip
    assert "seconds: load models" in caplog.text
    html = (tmp_path / "out" / "BraTS-GLI-0001" / "report.html").read_text()
    body = html[html.index("<body>") :]
    assert body.index(FIRST_LINE) < body.index("<h1>")
    assert "http" not in html
    assert 'src="data:image/png' in html


def test_preparation_and_probability_are_those_of_training(tmp_path, prepared, idh):
    """A training subject, given as raw files, has the same volume as in training."""
    raw = tmp_path / "EGD-03"
    for position, contrast in enumerate(CONTRASTS):
        write_nifti(raw / f"{EGD[contrast]}.nii.gz", brain_volume(30 + position))
    run(tmp_path, raw, "--run", idh, "--reference", "0", "--map")
    with (idh / "predictions.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["subject"] == "EGD-03")
    assert report(tmp_path, "EGD-03")["runs"][0]["by_fold"][row["fold"]] == pytest.approx(
        float(row["probability"]), abs=1e-6
    )
    config = json.loads((idh / "config.json").read_text())
    assert config["data"]["preparation"] == {"size": [16, 16, 16], "percentiles": [2.0, 98.0], "margin": 2}


def test_probabilities_agree_with_the_results_of_a_calibrated_run(tmp_path, prepared):
    """Averaged weights, an epoch selected on validation, mirror images, temperature and threshold of each fold."""
    out = train(prepared, tmp_path / "run", "IDH", "--epochs", "2", "--val_fraction", "0.3", "--select", "best_val",
                "--calibrate", "temperature", "--threshold", "val", "--tta", "flip", "--ema", "0.9",
                "--lr", "1e-2")  # fmt: skip
    raw = tmp_path / "EGD-03"
    for position, contrast in enumerate(CONTRASTS):
        write_nifti(raw / f"{EGD[contrast]}.nii.gz", brain_volume(30 + position))
    run(tmp_path, raw, "--run", out, "--reference", "0", "--map")
    found = report(tmp_path, "EGD-03")["runs"][0]
    with (out / "predictions.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if row["subject"] == "EGD-03")
    decision = found["decision_by_fold"][row["fold"]]
    assert found["by_fold"][row["fold"]] == pytest.approx(float(row["probability"]), abs=1e-6)
    assert decision["temperature"] != 1
    assert decision["threshold"] == pytest.approx(float(row["threshold"]))
    (out / "fold_1" / "decision.json").unlink()
    with pytest.raises(ValueError, match=r"fold_1.decision\.json is missing"):
        run(tmp_path, raw, "--run", out)


def test_named_files_give_the_same_result_as_their_folder(tmp_path, idh):
    folder = patient(tmp_path)
    run(tmp_path, folder, "--run", idh, "--reference", "0")
    names = {contrast: next(folder.glob(f"*{BRATS_2023[contrast]}*")) for contrast in CONTRASTS}
    words = [word for contrast, path in names.items() for word in (f"--{contrast}", path)]
    before = report(tmp_path)["runs"][0]["probability"]
    assert run(tmp_path, *words, "--run", idh, "--reference", "0") == 0
    assert report(tmp_path)["runs"][0]["probability"] == before


def test_missing_contrasts_need_a_run_with_contrast_dropout(tmp_path, idh, codeletion):
    folder = patient(tmp_path, contrasts=("flair", "t1ce"))
    with pytest.raises(ValueError, match=r"t1, t2 missing, and .* was trained with all of .*--contrast_dropout"):
        run(tmp_path, folder, "--run", idh)
    assert run(tmp_path, folder, "--run", codeletion) == 0
    facts = report(tmp_path)
    assert facts["missing_contrasts"] == ["t1", "t2"]
    assert "missing contrasts: t1, t2" in facts["unlike_training"]
    assert facts["runs"][0]["novelty"]["n"] == SUBJECTS  # compared with subjects that lack the same
    with pytest.raises(ValueError, match="t1, t2, t1ce, flair are all missing"):
        predict.open_ensemble(codeletion, predict.torch.device("cpu")).check_contrasts(CONTRASTS)


def test_several_patients_give_a_table_and_a_bad_one_does_not_stop_the_others(tmp_path, idh, codeletion, caplog):
    good, lacking = patient(tmp_path, "A"), patient(tmp_path, "B", contrasts=("t1",))
    (tmp_path / "C").mkdir()
    assert run(tmp_path, good, lacking, tmp_path / "C", "--run", idh, "--reference", "0", "--map") == 1
    with (tmp_path / "out" / "predictions.csv").open() as file:
        rows = {row["patient"]: row for row in csv.DictReader(file)}
    assert float(rows["A"]["probability_IDH_mutant"]) == pytest.approx(
        report(tmp_path, "A")["runs"][0]["probability"], abs=1e-6
    )
    assert "--contrast_dropout" in rows["B"]["problem"]
    assert "no file named like" in rows["C"]["problem"]
    assert all(row["notice"] == FIRST_LINE for row in rows.values())
    assert "failed: B" in caplog.text
    assert not (tmp_path / "out" / "B" / "report.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "neither a folder nor a file"), (["FOLDER", "--t1", "x.nii"], "folders and --t1 are both given"),
     (["FOLDER", "FOLDER"], "two folders are named BraTS-GLI-0001"), (["--t2", "x.nii"], r"--t2 x\.nii is missing"),
     (["FOLDER", "--reference", "4"], "--reference 4: .* at least 5"),
     (["FOLDER", "--run", "nowhere"], "nowhere is not a run")],
)  # fmt: skip
def test_wrong_options_are_named(tmp_path, idh, words, message):
    folder = patient(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, *[folder if word == "FOLDER" else word for word in words], "--run", idh)


def test_wrong_runs_are_named(tmp_path, prepared, idh, codeletion):
    folder = patient(tmp_path)
    with pytest.raises(ValueError, match="both predict IDH; give one run per label type"):
        run(tmp_path, folder, "--run", idh, "--run", idh)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(idh / "config.json", empty)
    with pytest.raises(ValueError, match="empty has no fold with a checkpoint"):
        run(tmp_path, folder, "--run", empty)
    shutil.copytree(codeletion / "fold_1", empty / "fold_1")
    config = json.loads((codeletion / "config.json").read_text())
    (empty / "config.json").write_text(json.dumps({**config, "label_type": "IDH"}))
    with pytest.raises(ValueError, match=r"fold_1.* was trained for 1p19q, its run .* for IDH"):
        run(tmp_path, folder, "--run", empty)


def test_without_the_training_data_there_is_no_comparison(tmp_path, idh):
    moved = tmp_path / "moved"
    shutil.copytree(idh, moved, ignore=shutil.ignore_patterns("reference"))
    config = json.loads((idh / "config.json").read_text())
    config["data"]["root"] = "/nowhere"
    (moved / "config.json").write_text(json.dumps(config))
    run(tmp_path, patient(tmp_path), "--run", moved)
    found = report(tmp_path)["runs"][0]
    assert found["novelty"] is None
    assert "do not exist" in found["novelty_not_judged"]
    assert "not compared" in (tmp_path / "out" / "BraTS-GLI-0001" / "report.html").read_text()


def test_a_scan_whose_features_lie_far_away_is_flagged(tmp_path, idh, monkeypatch):
    folder, computed = patient(tmp_path), predict.FoldEnsemble.predict
    run(tmp_path, folder, "--run", idh)
    ordinary = report(tmp_path)
    assert not ordinary["runs"][0]["novelty"]["unlike"]
    assert ordinary["unlike_training"] == []

    def elsewhere(ensemble, volume):
        found = computed(ensemble, volume)
        return predict.EnsemblePrediction(found.by_fold, {fold: values + 10 for fold, values in found.features.items()})

    monkeypatch.setattr(predict.FoldEnsemble, "predict", elsewhere)
    run(tmp_path, folder, "--run", idh)
    assert report(tmp_path)["runs"][0]["novelty"]["unlike"]
    assert "IDH: the distance to held-out subjects" in report(tmp_path)["unlike_training"][0]
    assert (
        "This scan differs from the training data" in (tmp_path / "out" / "BraTS-GLI-0001" / "report.html").read_text()
    )


def test_thick_slices_and_a_cut_brain_are_warned_about(tmp_path, idh):
    thick = AFFINE @ np.diag([0.5, 0.5, 2.6, 1])  # 1 x 1 x 6.5 mm
    folder = patient(tmp_path, affine=thick, change=lambda volume: np.ascontiguousarray(volume[:, :, :9]))
    run(tmp_path, folder, "--run", idh, "--reference", "0")
    warnings = " ".join(report(tmp_path)["unlike_training"])
    assert "voxels of 1 x 1 x 6.5 mm" in warnings
    assert "upper end of the field of view" in warnings


def test_options_have_an_effect(tmp_path, idh):
    folder = patient(tmp_path)
    names = f"{folder.name}_IDH_map-max.nii.gz"
    maps = {}
    for how in ("nearest", "trilinear"):
        run(tmp_path, folder, "--run", idh, "--reference", "6", "--upsample", how)
        maps[how] = np.asarray(nibabel.load(tmp_path / "out" / folder.name / names).dataobj)
    assert not np.array_equal(maps["nearest"], maps["trilinear"])
    assert report(tmp_path)["runs"][0]["novelty"]["n"] < SUBJECTS
    run(tmp_path, folder, "--run", idh, "--reference", "0", "--map")
    assert report(tmp_path)["runs"][0]["maps"] == {}
    assert report(tmp_path)["runs"][0]["viewer"] is None
    assert report(tmp_path)["runs"][0]["novelty_not_judged"] == "--reference 0"


def test_a_class_specific_map_explains_the_predicted_class(tmp_path, idh):
    folder = patient(tmp_path)
    run(tmp_path, folder, "--run", idh, "--reference", "0", "--map", "gradient")
    called = report(tmp_path)["runs"][0]["decision"]
    html = (tmp_path / "out" / folder.name / "report.html").read_text()
    assert f"IDH: gradient x activation, for {called}, mean of 2 folds" in html
    assert f'<a href="{folder.name}_IDH_viewer.html">' in html


def test_the_completeness_gap_is_in_the_report_and_the_viewer(tmp_path, idh, caplog, monkeypatch):
    folder = patient(tmp_path)
    run(tmp_path, folder, "--run", idh, "--reference", "0", "--map", "max", "integrated")
    completeness = report(tmp_path)["runs"][0]["completeness"]
    assert list(completeness) == ["integrated"]
    assert completeness["integrated"]["is_complete"]
    assert 0 <= completeness["integrated"]["gap"] <= 0.02
    said = f"completeness gap {completeness['integrated']['gap']:.1%} ("
    for file in ("report.html", f"{folder.name}_IDH_viewer.html"):
        assert said in (tmp_path / "out" / folder.name / file).read_text()
    assert "this map is not reliable" not in caplog.text
    monkeypatch.setattr("vis.maps.path_integral.TOLERANCE", -1.0)
    run(tmp_path, folder, "--run", idh, "--reference", "0", "--map", "integrated")
    assert caplog.text.count("this map is not reliable") == 1


def test_an_impossible_combination_is_shown_as_such(tmp_path, idh, codeletion, monkeypatch):
    def certain(ensemble, volume):
        return predict.EnsemblePrediction({0: 0.1 if ensemble.label_type == "IDH" else 0.9}, {0: np.zeros(1)})

    monkeypatch.setattr(predict.FoldEnsemble, "predict", certain)
    run(tmp_path, patient(tmp_path), "--run", idh, "--run", codeletion, "--reference", "0", "--map")
    assert report(tmp_path)["who_2021"]["reading"] == IMPOSSIBLE
    assert IMPOSSIBLE in (tmp_path / "out" / "BraTS-GLI-0001" / "report.html").read_text()
