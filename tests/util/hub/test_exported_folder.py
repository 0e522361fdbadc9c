"""Reading exported folders: missing, foreign and damaged files are an error with the fix."""

import json
import shutil

import pytest
import torch

from models import create_model
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.loading import load_pretrained, load_weights, read_checkpoint
from util.hub.exported_folder import FILES, FOLD_FILES, OURS, is_exported, read_exported_config
from util.inference.ensemble import open_ensemble
from util.protocol import decision as calibration

FIELDS = {"img_size": 16, "embed_dim": 12, "depth": 2, "d_state": 2}


@pytest.fixture(scope="module")
def whole(hub_runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("form") / "idh"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        main(["export", str(hub_runs / "idh"), str(folder)])
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "idh")


def damage(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def remove(name):
    return lambda folder: (folder / name).unlink()


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-100])


FOREIGN = json.dumps({"architecture": "resnet18", "num_classes": 10, "pretrained_cfg": {}})
FAULTS = {
    "no config": (remove("config.json"), r"config\.json is missing, so .* is no exported model: download it again"),
    "no weights": (remove("model.safetensors"), r"idh/model\.safetensors is missing: download it again, or write it"),
    "no JSON": (write("config.json", '{"mamba_mae_3d": '), r"config\.json is damaged .*download it again"),
    "a list": (
        write("config.json", '["mamba_mae_3d"]'),
        r"config\.json describes no exported model: export",
    ),
    "another program's": (
        write("config.json", FOREIGN),
        r"config\.json describes the model resnet18 of another",
    ),
    "cut off": (cut("model.safetensors"), r"model\.safetensors is damaged, or of another export than .*config\.json"),
    "one bit": (lambda folder: damage(folder / "model.safetensors", -3), r"model\.safetensors is damaged"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_whole_is_refused_by_name(folder, fault):
    plant, message = FAULTS[fault]
    model = create_model("vim_3d_tiny_patch8", **FIELDS)
    load_pretrained(model, folder)
    plant(folder)
    with pytest.raises(ValueError, match=message):
        load_pretrained(model, folder)


def test_every_fold_of_an_exported_run_is_checked(folder):
    damage(folder / "fold_1" / "model.safetensors", -3)
    load_weights(create_model("vim_3d_tiny_patch8", **FIELDS), folder)  # fold 0 alone
    with pytest.raises(ValueError, match=r"fold_1/model\.safetensors is damaged"):
        open_ensemble(folder, torch.device("cpu"))


def test_the_wrong_architecture_is_refused(folder):
    with pytest.raises(
        ValueError, match=r"idh: embed_dim is 12 in the checkpoint and 24 in the model: choose the --mo"
    ):
        load_pretrained(create_model("vim_3d_tiny_patch8", **FIELDS | {"embed_dim": 24}), folder)
    with pytest.raises(ValueError, match=r"idh: the checkpoint is a classifier and has no decoder"):
        load_pretrained(create_model("mae_3d_vim_tiny_patch8", **FIELDS), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architecture": "vim_3d_tny_patch8"}))
    with pytest.raises(ValueError, match=r"unknown model 'vim_3d_tny_patch8'; did you mean 'vim_3d_tiny_patch8'"):
        open_ensemble(folder, torch.device("cpu"))


def test_a_folder_of_another_kind_is_refused(hub_runs, tmp_path):
    with pytest.raises(ValueError, match=r"pretrain is a run folder: give a file in it, such as .*checkpoint-1\.pth"):
        read_checkpoint(hub_runs / "pretrain")
    with pytest.raises(ValueError, match=r"config\.json is missing, so .* is no exported model"):
        read_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="gone is not a folder: name one that was exported"):
        read_exported_config(tmp_path / "gone")
    assert not is_exported(hub_runs / "pretrain")


def test_the_weights_file_records_its_model(folder, tmp_path):
    shutil.copy(folder / "model.safetensors", tmp_path / "m.safetensors")
    alone, there = read_checkpoint(tmp_path / "m.safetensors"), read_checkpoint(folder)
    assert alone["config"] == there["config"]
    assert alone["config"]["model"]["fields"]["embed_dim"] == 12
    assert OURS not in alone["config"]


def test_file_names_agree_with_the_writers():
    assert calibration.DECISION in FOLD_FILES
    assert {f"fold_*/{name}" for name in FOLD_FILES} < set(FILES)
