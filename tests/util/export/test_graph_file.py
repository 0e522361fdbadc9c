"""The command writes a classifier for other runtimes, compared with the model, with what its user must know."""

import json
import subprocess
import sys
from dataclasses import asdict

import pytest
import torch

from models import create_model
from tests.conftest import SMALL
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.files import save_checkpoint
from util.export import graph_file
from util.export.trained import open_trained
from util.protocol.decision import Decision
from util.runs import write_json

NAME = "vim_3d_small_patch8"
DATA = {"contrasts": ["t1", "t2", "t1ce", "flair"], "normalize": "zscore"}
LOAD = """
import sys, torch
program = torch.export.load(sys.argv[1], extra_files=(found := {"facts.json": ""}))
torch.save(program.module()(torch.load(sys.argv[2])), sys.argv[3])
assert not {"ops", "models", "util"} & set(sys.modules)
print(found["facts.json"])
"""


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(cli, "setup_logging", lambda: None)


@pytest.fixture
def volume():
    return torch.randn(2, 4, 8, 8, 24)


@pytest.fixture
def run(tmp_path):
    """A fine-tuning run of one fold."""
    folder = tmp_path / "run"
    model = create_model(NAME, **{**SMALL, "depth": 1, "img_size": (8, 8, 24)})
    config = {"kind": "finetune", "model": {"name": NAME, "fields": asdict(model.config)}, "label_type": "IDH"}
    config |= {"data": DATA, "fold": 0}
    save_checkpoint(folder / "fold_0" / "checkpoint-0.pth", {"model": model.state_dict(), "config": config})
    Decision(temperature=1.5).save(folder / "fold_0")
    write_json(folder / "config.json", config)
    return folder


def test_onnx_with_its_facts(run, tmp_path, volume, caplog):
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -r requirements-export.txt")
    with caplog.at_level("INFO", "util.export.graph_file"):
        main(["export", str(run), str(tmp_path / "m.onnx")])
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["contrasts"] == "t1, t2, t1ce, flair"
    assert facts["normalisation"].startswith("zscore: each contrast minus its mean over the brain")
    assert facts["input"] == "volume: float32 (batch, 4, 8, 8, 24), a prepared volume, axes z, y, x"
    assert facts["classes"] == "IDH wild type, IDH mutant"
    assert json.loads(facts["decision"])["temperature"] == 1.5
    assert all(text in caplog.text for text in facts.values())
    assert "differ by at most" in caplog.text
    with torch.no_grad():
        wanted = open_trained(run).model(volume)
    (found,) = session.run(None, {"volume": volume.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=0, atol=1e-4)


def test_a_program_loads_without_this_project(run, tmp_path, volume):
    main(["export", str(run), str(tmp_path / "m.pt2")])
    torch.save(volume, tmp_path / "v.pt")
    command = [sys.executable, "-c", LOAD, *(str(tmp_path / name) for name in ("m.pt2", "v.pt", "logits.pt"))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["predicts"] == "IDH"
    with torch.no_grad():
        wanted = open_trained(run).model(volume)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt").detach(), wanted, rtol=0, atol=1e-5)


def test_a_graph_that_differs_is_not_written(run, tmp_path):
    trained = open_trained(run)
    with pytest.raises(RuntimeError, match="logits differ from the model's by"):
        graph_file._check_logits(trained, lambda volume: trained.model(volume) + 2e-4)
    with pytest.raises(RuntimeError, match="by nan"):
        graph_file._check_logits(trained, lambda volume: trained.model(volume) * torch.nan)


def test_without_the_packages_the_command_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"m\.onnx needs onnxscript .*requirements-export\.txt"):
        main(["export", str(run), str(tmp_path / "m.onnx")])
    assert not (tmp_path / "m.onnx").exists()
