"""The command line: conversion keeps all that loading needs, and the commands start as a module."""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models import create_model
from tests.conftest import SMALL
from util import cli
from util.checkpoint.__main__ import convert_checkpoint, main
from util.checkpoint.files import read_checkpoint, save_checkpoint
from util.checkpoint.loading import load_pretrained

NAMES = {"autoencoder": "mae_3d_vim_small_patch8", "classifier": "vim_3d_small_patch8"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


def model_of(target, fidelity="corrected"):
    return create_model(NAMES[target], **SMALL, fidelity=fidelity)


def write_ours(path, target="autoencoder", fidelity="corrected"):
    model = model_of(target, fidelity)
    config = {"kind": "pretrain", "model": {"name": NAMES[target], "fields": asdict(model.config)}}
    save_checkpoint(path, {"model": model.state_dict(), "optimizer": {}, "scaler": {}, "epoch": 3, "config": config})
    return path


def write_published(path, target="autoencoder"):
    state = model_of(target, "paper").state_dict() | {"rope.freqs": torch.zeros(12)}
    if target == "autoencoder":
        state |= {"cls_token": torch.zeros(1, 1, 48), "decoder_rope.freqs": torch.zeros(6)}
    args = argparse.Namespace(input_size=[16, 24, 32], model=NAMES[target], mask_ratio=0.75, resume="", gpu=0)
    save_checkpoint(path, {"model": state, "optimizer": {}, "epoch": 999, "scaler": {}, "args": args})
    return path


WRITERS = {
    "ours": write_ours,
    "ours, paper": lambda path: write_ours(path, fidelity="paper"),
    "our classifier": lambda path: write_ours(path, "classifier"),
    "published": write_published,
    "published classifier": lambda path: write_published(path, "classifier"),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_conversion_and_back_keeps_all_that_loading_needs(tmp_path, writer, caplog):
    source, middle, back = WRITERS[writer](tmp_path / "a.pth"), tmp_path / "b.safetensors", tmp_path / "c.pth"
    with caplog.at_level("INFO", "util.checkpoint.__main__"):
        main(["convert", str(source), str(middle)])
    assert "left out: optimizer, scaler" in caplog.text
    main(["convert", str(middle), str(back)])
    before, after = read_checkpoint(source), read_checkpoint(back)
    assert all(torch.equal(after["model"][key], value) for key, value in before["model"].items())
    assert after.get("args") == before.get("args")
    assert after["epoch"] == before["epoch"]
    assert json.loads(json.dumps(before.get("config"))) == after.get("config")  # JSON makes lists of tuples
    reports = [load_pretrained(model_of("classifier"), path, any_fidelity=True) for path in (source, middle, back)]
    assert reports[0].missing == reports[1].missing == reports[2].missing
    assert set(reports[0].ignored) == set(reports[1].ignored) == set(reports[2].ignored)


def test_existing_files_are_kept_unless_overwritten(tmp_path):
    source, target = write_ours(tmp_path / "a.pth"), tmp_path / "b.safetensors"
    target.write_text("precious")
    with pytest.raises(ValueError, match=r"b\.safetensors exists.*--overwrite"):
        main(["convert", str(source), str(target)])
    assert target.read_text() == "precious"
    main(["convert", str(source), str(target), "--overwrite"])
    assert read_checkpoint(target)["epoch"] == 3


@pytest.mark.parametrize(
    ("source", "destination", "message"),
    [("a.pth", "b.pt", "of the same format"), ("a.pth", "b.onnx", r"b\.onnx: give names that end in"),
     ("gone.pth", "b.safetensors", "gone.pth does not exist")],
)  # fmt: skip
def test_wrong_names_are_refused_and_write_nothing(tmp_path, source, destination, message):
    write_ours(tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        convert_checkpoint(tmp_path / source, tmp_path / destination)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.slow
def test_the_command_starts_as_a_module(tmp_path):
    path = write_ours(tmp_path / "a.pth")
    command = [sys.executable, "-W", "error", "-m", "util.checkpoint", "inspect"]
    root = Path(__file__).resolve().parents[3]
    options = {"cwd": root, "capture_output": True, "text": True, "check": False, "env": {**os.environ}}
    done = subprocess.run([*command, str(path)], **options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mae_3d_vim_small_patch8 (our config in the file)" in done.stdout
    failed = subprocess.run([*command, str(tmp_path / "gone.pth")], **options)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: checkpoint")
