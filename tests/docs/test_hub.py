"""Every command of docs/hub.md is run, at small size and against a stand-in of the hub."""

import shlex

import pytest
import torch

import main_cr_finetune
import predict
import probe
import vis.visualize
from tests.helpers.hub_server import TOKEN, HubServer, reached
from tests.helpers.pages import ROOT, blocks
from tests.helpers.prepared import TINY, make_prepared
from tests.helpers.raw_studies import brain_volume, write_nifti
from util.checkpoint import __main__ as checkpoint_tool
from util.data.folder import CONTRASTS
from util.runs import read_config

PAGE = ROOT / "docs" / "hub.md"
PROGRAMS = {
    "util.checkpoint": (checkpoint_tool.main, []),
    "predict.py": (predict.main, ["--device", "cpu", "--map"]),
    "main_cr_finetune.py": (main_cr_finetune.main, ["--epochs", "1", "--k_fold", "2", "--batch_size", "2",
                                                    "--baselines", "none", *TINY]),
    "probe.py": (probe.main, ["--device", "cpu", "--k_fold", "2"]),
    "vis/visualize.py": (vis.visualize.main, ["--device", "cpu", "--subjects", "1", "--ratios"]),
}  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # of huggingface_hub


@pytest.fixture(scope="module")
def place(hub_runs, tmp_path_factory):
    """Where the paths of the commands lead to here."""
    root = tmp_path_factory.mktemp("docs")
    patient = root / "patient_1"
    for contrast in CONTRASTS:
        write_nifti(patient / f"patient_1_{contrast}.nii.gz", brain_volume(CONTRASTS.index(contrast)))
    return {
        "runs/pretrain": hub_runs / "pretrain", "runs/idh": hub_runs / "idh", "runs/again": root / "again",
        "runs/probe": root / "probe", "exports/mae": root / "mae", "exports/idh": root / "idh", "maps": root / "maps",
        "/data/new/patient_1": patient, "/data/prepared/egd": make_prepared(root / "egd"),
        "predictions": root / "predictions", "vim_3d_small_patch16": "vim_3d_tiny_patch8",
    }  # fmt: skip


def run(line, place):
    words = [str(place.get(word, word)) for word in shlex.split(line)]
    if words[:2] == ["hf", "auth"]:
        return  # huggingface_hub's; the token is there
    at = next(i for i, word in enumerate(words) if word in PROGRAMS)
    main, more = PROGRAMS[words[at]]
    assert main([*words[at + 1 :], *more]) in (None, 0)


@pytest.mark.slow
def test_the_page_does_what_it_says(place, tmp_path):
    export, load, push = ([line for line in block.splitlines() if line] for block in blocks(PAGE, "bash"))
    with HubServer() as server, reached(server.url, tmp_path / "home"):
        for line in [*export, *push, *load]:
            run(line, place)
        known = {"exports/idh": str(place["exports/idh"])}
        (python,) = blocks(PAGE, "python")
        for name, path in known.items():
            python = python.replace(name, path)
        found = {}
        exec(python, found)
        volume = torch.randn(1, 4, 16, 16, 16)
        assert torch.equal(found["model"](volume), found["online"](volume))
        commit = server.repositories["user/mae"].sha("main")
    assert server.repositories["user/idh"].private
    assert read_config(place["runs/again"])["finetune"] == f"hf-hub:user/mae@{commit}"
    assert (place["predictions"] / "patient_1" / "report.json").is_file()
    assert (place["runs/probe"] / "results.csv").is_file()
    assert len(list(place["maps"].rglob("*_map-max.npy"))) == 1
    assert TOKEN not in "".join(path.read_text() for path in place["exports/idh"].rglob("*.json"))
