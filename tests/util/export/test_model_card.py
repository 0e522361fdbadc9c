"""The model card: its numbers are those of the run, and what the run does not record is "unknown"."""

import json

import pytest

from util import cli
from util.checkpoint.__main__ import main
from util.export.model_card import render_card
from util.hub.exported_folder import OURS
from util.patient.who_2021 import NOTICE


@pytest.fixture(scope="module")
def exported(hub_runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("cards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        for name in ("pretrain", "idh"):
            main(["export", str(hub_runs / name), str(root / name)])
    return root


def parts(text):
    """Title -> the text below it; "" -> what stands first."""
    found, title = {}, ""
    for line in text.splitlines():
        if line.startswith("## "):
            title = line[3:]
        found.setdefault(title, []).append(line)
    return {title: "\n".join(lines) for title, lines in found.items()}


def rows(text):
    """First cell -> the others, of the rows of tables that have a first cell."""
    cells = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ") and line[2] != "|"]
    return {first: others for first, *others in cells}


def test_the_card_of_a_fine_tuned_run_has_scores_with_intervals(hub_runs, exported):
    card = parts((exported / "idh" / "README.md").read_text())
    results = json.loads((hub_runs / "idh" / "results.json").read_text())
    found = rows(card["Results"])
    for name, row in results["statistics"]["pooled"].items():
        shown = ["not defined" if row[key] is None else f"{row[key]:z.3f}" for key in ("value", "low", "high")]
        assert found[name.replace("_", " ")] == shown, name
    assert found["1"][0] == str(results["per_fold"][1]["n"])
    assert found["majority class"][0] == str(results["n"])
    assert (
        f"95% confidence interval by {results['statistics']['resamples']} bootstrap resamples of 11 patients"
        in card["Results"]
    )
    data, training = rows(card["Data"]), rows(card["Training"])
    assert (data["subjects"], data["simulated"], data["subjects of unknown label, left out"]) == (["11"], ["no"], ["1"])
    assert data["preparation"] == ["unknown"]  # the folder was made by hand
    assert (training["`--epochs`"], training["`--calibrate`"]) == (["2"], ["temperature"])
    assert training["started from"] == [
        "`mae_3d_vim_tiny_patch8`, objective mae, after epoch 1, 12 subjects; not part of this folder"
    ]
    assert "Probabilities were not calibrated" not in card["Limits"]
    assert "None may be missing" in card["Limits"]
    assert NOTICE in card[""]
    assert "license: unknown\n" in card[""]


def test_the_card_of_a_pre_training_has_its_loss(hub_runs, exported):
    card = parts((exported / "pretrain" / "README.md").read_text())
    last = json.loads((hub_runs / "pretrain" / "metrics.jsonl").read_text().splitlines()[-1])
    found = rows(card["Results"])
    assert found["training loss in that epoch"] == [f"{last['train_loss']:.3f}"]
    assert found["loss if each patch is predicted by its mean"] == [f"{last['baseline_loss']:.3f}"]
    assert rows(card["Training"])["mask ratio"] == ["0.75"]
    assert "Masked autoencoder of multi-contrast brain MRI" in card[""]
    assert "predict.py" not in card["How to load it"]


def config_of(exported, name, **ours):
    config = json.loads((exported / name / "config.json").read_text())
    return config | {OURS: config[OURS] | ours}


def test_what_is_not_recorded_is_called_unknown(exported):
    bare = config_of(exported, "idh", data={}, args={}, versions={}, device=None, git=None, ranks=None, epoch=None,
                     started_from={"name": None}, n_unknown=None)  # fmt: skip
    card = parts(render_card(bare, folds=[0], results=None, metrics=[]))
    assert {name: value for name, value in rows(card["Data"]).items() if value != ["unknown"]}.keys() == {
        "label", "classes 0 and 1",
    }  # fmt: skip
    found = rows(card["Training"])
    assert found.pop("started from") == ["pre-trained weights of unknown origin; not part of this folder"]
    assert set(map(tuple, found.values())) == {("unknown",)}
    assert "Unknown: no results.json lay beside the weights." in card["Results"]
    assert "Its performance is unknown." in card["Limits"]
    assert "after epoch unknown" in card["Model"]
    assert "Trained on simulated phantoms" not in card[""]


def test_phantoms_controls_and_random_starts_are_named(exported):
    config = config_of(exported, "idh", data={"phantom": True}, args={"control": "shuffled_labels"}, started_from=None)
    results = {"pooled": {"auc": 0.5}, "per_fold": [], "missing_folds": [3, 4], "n": 9}
    card = parts(render_card(config, folds=[0], results=results, metrics=[]))
    assert "Trained on simulated phantoms: its scores" in card[""]
    assert "Trained with `--control shuffled_labels`" in card[""]
    assert rows(card["Training"])["started from"] == ["random weights"]
    assert rows(card["Results"])["auc"] == ["0.500", "unknown", "unknown"]
    assert "Scores lack folds 3, 4, which had not run." in card["Limits"]
    assert "Probabilities were not calibrated." in card["Limits"]


def test_the_front_matter_is_yaml_for_the_hub(exported):
    from huggingface_hub import ModelCard

    for name in ("pretrain", "idh"):
        data = ModelCard.load(exported / name / "README.md").data
        assert (data.license, data.library_name) == ("unknown", "timm")
        assert "brain-mri" in data.tags
