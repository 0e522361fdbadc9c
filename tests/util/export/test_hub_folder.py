"""Exported folders: timm and our programs compute the same as with the run, and nothing private is in them."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
import timm
import torch

import compare
import main_cr_finetune
import main_pretrain
import models
import probe
import vis.check_maps
import vis.report
import vis.visualize
import vis.visualize_finetuned
from tests.helpers.hub_runs import FINETUNE, PRETRAIN, SUBJECTS
from tests.helpers.prepared import TINY, make_prepared
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.loading import load_pretrained
from util.export.trained import open_trained
from util.hub.exported_folder import FILES, OURS, files_of
from util.inference.ensemble import open_ensemble
from util.inference.fold_models import FoldModels
from util.patient.reference_features import reference_features
from util.protocol.best_epoch import selected_weights
from util.protocol.decision import read_decision
from util.protocol.held_out import read_folds
from util.runs import checkpoints, read_config
from vis.export.map_files import output_folder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda *_: None)


@pytest.fixture(scope="module")
def exported(hub_runs, tmp_path_factory):
    """The runs' names -> their exported folders; fold 1 of the fine-tuning on top."""
    root = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        main(["export", str(hub_runs / "pretrain"), str(root / "pretrain"), "--license", "cc-by-nc-4.0"])
        main(["export", str(hub_runs / "idh"), str(root / "idh"), "--fold", "1"])
    return root


@pytest.fixture
def volume():
    return torch.randn(2, 4, 16, 16, 16)


@pytest.mark.parametrize("options", [{}, {"pretrained": True}], ids=["named", "pretrained"])
def test_timm_computes_what_the_checkpoint_does_bit_for_bit(hub_runs, exported, volume, options):
    ours = open_trained(hub_runs / "idh", 1).model
    theirs = timm.create_model(f"local-dir:{exported / 'idh'}", **options).eval()
    other = open_trained(hub_runs / "idh", 0).model
    with torch.no_grad():
        assert torch.equal(theirs(volume), ours(volume))
        assert not torch.equal(theirs(volume), other(volume))
        for fold, model in ((0, other), (1, ours)):
            part = timm.create_model(f"local-dir:{exported / 'idh' / f'fold_{fold}'}", **options).eval()
            assert torch.equal(part(volume), model(volume))


def test_an_autoencoder_comes_back_whole(hub_runs, exported, volume):
    ours = open_trained(hub_runs / "pretrain").model
    theirs = timm.create_model(f"local-dir:{exported / 'pretrain'}").eval()
    noise = torch.rand(2, 8)
    with torch.no_grad():
        for a, b in zip(ours(volume, noise=noise), theirs(volume, noise=noise), strict=True):
            assert torch.equal(a, b)
    assert theirs.pretrained_cfg["license"] == "cc-by-nc-4.0"
    assert theirs.pretrained_cfg["input_size"] == (4, 16, 16, 16)


def test_timm_adapts_it_as_any_model(exported, volume):
    model = timm.create_model(f"local-dir:{exported / 'idh'}", num_classes=5, img_size=(16, 16, 24)).eval()
    assert model(torch.randn(1, 4, 16, 16, 24)).shape == (1, 5)
    whole = timm.create_model(f"local-dir:{exported / 'idh'}")
    assert torch.equal(model.patch_embed.proj.weight, whole.patch_embed.proj.weight)


def test_an_exported_run_is_read_as_the_run(hub_runs, exported, volume):
    run, form = (open_ensemble(folder / "idh", CPU) for folder in (hub_runs, exported))
    assert list(form.models) == list(run.models) == [0, 1]
    assert form.decisions == run.decisions
    assert {decision.temperature for decision in run.decisions.values()} != {1.0}
    assert (form.label_type, form.contrasts, form.settings) == (run.label_type, run.contrasts, run.settings)
    assert form.predict(volume[:1]).by_fold == run.predict(volume[:1]).by_fold
    assert form.warnings == run.warnings


def test_single_checkpoints_are_exported(hub_runs, exported, tmp_path):
    decision = read_decision(hub_runs / "idh" / "fold_0", {})
    best, last = (selected_weights(hub_runs / "idh" / "fold_0", select) for select in ("best_val", "last"))
    main(["export", str(best), str(tmp_path / "best")])
    ensemble = open_ensemble(tmp_path / "best", CPU)
    assert ensemble.decisions == {0: decision}
    assert "only 1 of 2 folds" in ensemble.warnings[0]
    main(["export", str(last), str(tmp_path / "last")])
    with pytest.raises(ValueError, match=r"decision\.json is missing, and the run was trained with --calibrate"):
        open_ensemble(tmp_path / "last", CPU)  # which has no temperature of its own
    main(["export", str(hub_runs / "pretrain" / "checkpoint-1.pth"), str(tmp_path / "pre")])
    texts = [(folder / "pre" / "README.md").read_text() for folder in (tmp_path,)]
    assert texts == [(exported / "pretrain" / "README.md").read_text().replace("cc-by-nc-4.0", "unknown")
                     .replace("weights: unknown.", "weights: unknown; ask whoever published them.")]  # fmt: skip


def test_fine_tuning_starts_from_an_exported_folder(hub_runs, exported):
    kept = torch.load(hub_runs / "pretrain" / "checkpoint-1.pth", weights_only=True)["model"]
    for path in (exported / "pretrain", exported / "pretrain" / "model.safetensors"):
        model = models.create_model("vim_3d_tiny_patch8", img_size=16, embed_dim=12, depth=2, d_state=2)
        report = load_pretrained(model, path)
        assert report.missing == ["head.weight", "head.bias"]
        assert torch.equal(model.state_dict()["blocks.1.mixer.A_log"], kept["blocks.1.mixer.A_log"])


PLANTED = "Erika_Mustermann"


def private_words(root):
    """What must not leave the house: names of subjects, folders, files and columns, and of this machine."""
    names = [f"sub-{index:02d}" for index in range(SUBJECTS)]
    return [*names, "private_place", str(root), f"{Path.home()}/", f"@{socket.gethostname()}", ".xlsx", "checkpoint-",
            PLANTED, os.getcwd()]  # fmt: skip


def everything(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_private_is_exported(hub_runs, tmp_path):
    runs = shutil.copytree(hub_runs, tmp_path / "runs")
    config = json.loads((runs / "idh" / "config.json").read_text())
    config |= {"note": PLANTED, "finetune": f"/home/{PLANTED}/checkpoint-3.pth"}
    config["args"] |= {"group_by": PLANTED, "stratify_by": PLANTED, "control": f"/{PLANTED}", "labels": PLANTED}
    config["data"] |= {"comment": PLANTED, "preparation": {"size": [16] * 3, "source": PLANTED}}
    (runs / "idh" / "config.json").write_text(json.dumps(config))
    for path in runs.glob("idh/fold_*/*.pth"):
        content = torch.load(path, weights_only=True)
        content |= {"sealed": False, "config": {**config, "fold": content["config"]["fold"]}, "note": PLANTED}
        torch.save(content, path)
    results = json.loads((runs / "idh" / "results.json").read_text())
    results["protocol"] |= {"folds_csv": f"/data/{PLANTED}.csv", "group_by": PLANTED}
    results["per_subject"] = [PLANTED]
    (runs / "idh" / "results.json").write_text(json.dumps(results))
    for name in ("pretrain", "idh"):
        main(["export", str(runs / name), str(tmp_path / "out" / name)])
    kept = everything(runs)
    assert all(any(word.encode() in content for content in kept.values()) for word in (PLANTED, "sub-07", ".xlsx"))
    for name, content in everything(tmp_path / "out").items():
        found = [word for word in private_words(tmp_path) if word.encode() in content]
        assert not found, f"{name} holds {found}"


def test_only_listed_files_are_written(exported):
    for folder in (exported / "pretrain", exported / "idh"):
        assert sorted(everything(folder)) == sorted(path.relative_to(folder).as_posix() for path in files_of(folder))
    assert {re.sub(r"fold_\d", "fold_*", name) for name in everything(exported / "idh")} == set(FILES)


def test_a_folder_that_was_not_exported_is_never_replaced(hub_runs, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious")
    with pytest.raises(ValueError, match=r"photos exists: choose another name, or replace it with --overwrite"):
        main(["export", str(hub_runs / "pretrain"), str(tmp_path / "photos")])
    with pytest.raises(ValueError, match="photos holds something that was not exported: choose another name"):
        main(["export", str(hub_runs / "pretrain"), str(tmp_path / "photos"), "--overwrite"])
    assert everything(tmp_path) == {"photos/a.jpg": b"precious"}
    main(["export", str(hub_runs / "idh"), str(tmp_path / "new")])
    main(["export", str(hub_runs / "pretrain"), str(tmp_path / "new"), "--overwrite"])
    assert sorted(everything(tmp_path / "new")) == ["README.md", "config.json", "model.safetensors"]
    with pytest.raises(ValueError, match=r"--fold 7: .*idh has checkpoints of folds 0, 1"):
        main(["export", str(hub_runs / "idh"), str(tmp_path / "x"), "--fold", "7"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "photos"]  # nothing half written is left


def test_a_training_does_not_write_to_exported_folders(exported, tmp_path):
    data, folder = make_prepared(tmp_path / "data"), exported / "pretrain"
    before = everything(folder)
    for more in ([], ["--resume", "auto"], ["--overwrite"]):
        with pytest.raises(ValueError, match=r"--output_dir .* holds an exported model: choose another folder"):
            main_pretrain.main([*PRETRAIN, "--data", str(data), "--output_dir", str(folder), *TINY, *more])
    assert everything(folder).items() >= before.items()


NEED_SUBJECTS = {
    "visualize_finetuned": (vis.visualize_finetuned.main, "--run", "was exported without the names of its subjects"),
    "check_maps": (vis.check_maps.main, "--run", "was exported without the names of its subjects"),
    "check_maps, seeds": (vis.check_maps.main, "--seeds", "was exported without the names of its subjects"),
    "report": (vis.report.main, "--finetune", r"is an exported model: its README\.md says what it contains"),
    "compare": (compare.main, "", r"predictions\.csv is missing: .* or it was exported without predictions"),
}


@pytest.mark.parametrize("program", NEED_SUBJECTS)
def test_programs_that_need_the_subjects_explain_that_they_are_not_exported(hub_runs, exported, tmp_path, program):
    main_of, flag, message = NEED_SUBJECTS[program]
    run = ["--run", str(hub_runs / "idh")] if flag == "--seeds" else []
    more = [str(hub_runs / "idh")] if program == "compare" else ["--device", "cpu"]
    with pytest.raises(ValueError, match=message):
        main_of([*run, *filter(None, [flag]), str(exported / "idh"), *more, "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_programs_that_need_data_ask_for_them(exported):
    with pytest.raises(ValueError, match=r"was exported without its data: name a prepared folder with --data"):
        vis.visualize.main(["--run", str(exported / "pretrain"), "--device", "cpu"])
    with pytest.raises(ValueError, match=r"--run hf-hub:user/name is not a local folder: name .* with --out"):
        output_folder(None, Path("hf-hub:user/name"), "vis")
    with pytest.raises(ValueError, match="an exported run has no data of held-out subjects"):
        reference_features(open_ensemble(exported / "idh", CPU), [], 40)


def test_folds_json_can_be_added_to_an_exported_folder(hub_runs, exported, tmp_path):
    folder = shutil.copytree(exported / "idh", tmp_path / "idh")
    shutil.copy(hub_runs / "idh" / "folds.json", folder)
    assert read_folds(folder) == read_folds(hub_runs / "idh")
    head = FoldModels(folder, hub_runs / "private_place", "cpu").model(1).head.weight
    assert torch.equal(head, open_trained(hub_runs / "idh", 1).model.get_parameter("head.weight"))


def test_nothing_is_scored_on_subjects_that_an_exported_fold_may_have_seen(hub_runs, exported):
    with pytest.raises(ValueError, match="holds an exported model: choose another folder"):
        main_cr_finetune.main([*FINETUNE, "--data", str(hub_runs / "private_place"), "--output_dir",
                               str(exported / "idh"), "--eval", *TINY])  # fmt: skip


def test_a_probe_warns_if_features_may_contain_the_answers(hub_runs, exported, caplog):
    found = probe.read_source(exported / "idh", hub_runs / "private_place")
    assert (found.name, found.normalize) == ("vim_3d_tiny_patch8", "zscore")
    assert "its features contain the answers" in " ".join(caplog.text.split())
    caplog.clear()
    probe.read_source(exported / "pretrain", hub_runs / "private_place")
    assert caplog.text == ""


def test_where_there_are_no_links_files_are_copied(hub_runs, exported, tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", no_links)
    main(["export", str(hub_runs / "idh"), str(tmp_path / "idh"), "--fold", "1"])
    assert everything(tmp_path / "idh").keys() == everything(exported / "idh").keys()
    links = [(folder / "idh" / "model.safetensors").stat().st_nlink for folder in (exported, tmp_path)]
    assert links == [2, 1]
    assert open_ensemble(tmp_path / "idh", CPU).label_type == "IDH"


def test_runs_find_the_one_file_of_weights(exported):
    assert checkpoints(exported / "pretrain") == [exported / "pretrain" / "model.safetensors"]
    config = read_config(exported / "idh")
    assert (config["kind"], config["fold"], config["model"]["name"]) == ("finetune", 1, "vim_3d_tiny_patch8")
    content = json.loads((exported / "idh" / "config.json").read_text())
    assert content["label_names"] == ["IDH wild type", "IDH mutant"]
    assert content[OURS]["started_from"] == {
        "name": None, "architecture": "mae_3d_vim_tiny_patch8", "epoch": 1, "objective": "mae", "mask_ratio": 0.75,
        "data": {"normalize": "zscore", "contrasts": ["t1", "t2", "t1ce", "flair"], "n_subjects": 12, "phantom": False},
    }  # fmt: skip
