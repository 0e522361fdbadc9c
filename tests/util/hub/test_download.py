"""Models on the hub: upload to and download from a local server in its place, and the errors."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants

import models
from tests.helpers.hub_server import HubServer, reached
from util import cli
from util.checkpoint.__main__ import main
from util.checkpoint.loading import load_pretrained, read_checkpoint
from util.export.trained import open_trained
from util.hub import download as hub
from util.hub.download import is_hub_name, local_path, pinned
from util.hub.exported_folder import files_of
from util.inference.ensemble import open_ensemble

# huggingface_hub's own way of uploading by LFS, deprecated in its HTTP client
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")
NAME, SOURCE = "user/idh", "hf-hub:user/idh"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def forms(hub_runs, tmp_path_factory):
    root = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "setup_logging", lambda *_: None)
        for name in ("pretrain", "idh"):
            main(["export", str(hub_runs / name), str(root / name)])
    return root


@pytest.fixture
def server(tmp_path):
    with HubServer() as running, reached(running.url, tmp_path / "home"):
        yield running


def push(folder, name=NAME, *options):
    main(["push", str(folder), name, *options])


def test_what_is_pushed_comes_back_byte_for_byte(server, forms):
    push(forms / "idh")
    folder = local_path(SOURCE, folds=True)
    assert folder.is_relative_to(constants.HF_HUB_CACHE)
    names = [path.relative_to(forms / "idh").as_posix() for path in files_of(forms / "idh")]
    assert sorted(server.repositories[NAME].commits[folder.name]) == sorted(names)
    assert all((folder / name).read_bytes() == (forms / "idh" / name).read_bytes() for name in names)
    assert not server.repositories[NAME].private


@pytest.mark.parametrize("options", [{}, {"pretrained": True}], ids=["named", "pretrained"])
def test_timm_loads_it_from_the_hub_bit_for_bit(server, forms, hub_runs, options):
    push(forms / "idh")
    volume = torch.randn(1, 4, 16, 16, 16)
    theirs, ours = timm.create_model(SOURCE, **options).eval(), open_trained(hub_runs / "idh", 0).model
    with torch.no_grad():
        assert torch.equal(theirs(volume), ours(volume))


def test_our_programs_load_it_from_the_hub(server, forms, hub_runs):
    push(forms / "idh")
    push(forms / "pretrain", "user/mae")
    volume = torch.randn(1, 4, 16, 16, 16)
    run, online = (open_ensemble(folder, CPU) for folder in (hub_runs / "idh", Path(SOURCE)))
    assert run.predict(volume).by_fold == online.predict(volume).by_fold
    model = models.create_model("vim_3d_tiny_patch8", img_size=16, embed_dim=12, depth=2, d_state=2)
    assert load_pretrained(model, Path("hf-hub:user/mae")).missing == ["head.weight", "head.bias"]
    kept = read_checkpoint(hub_runs / "pretrain" / "checkpoint-1.pth")["model"]
    assert torch.equal(model.state_dict()["blocks.0.mixer.D"], kept["blocks.0.mixer.D"])


def test_only_what_is_asked_for_is_downloaded(server, forms):
    push(forms / "idh")
    folder = local_path(SOURCE)
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors", "results.json"}
    assert sorted(path.name for path in local_path(SOURCE, folds=True).glob("fold_*")) == ["fold_0", "fold_1"]


def test_revisions_are_kept_apart_and_runs_record_the_commit(server, forms):
    push(forms / "idh")
    repository = server.repositories[NAME]
    first = repository.sha("main")
    repository.tags["v1.0"] = first
    push(forms / "pretrain")
    assert (local_path(f"{SOURCE}@v1.0").name, local_path(f"{SOURCE}@{first}").name) == (first, first)
    assert "fold" in json.loads((local_path(f"{SOURCE}@v1.0") / "config.json").read_text())["mamba_mae_3d"]
    second = repository.sha("main")
    assert pinned(SOURCE) == f"{SOURCE}@{second}" != f"{SOURCE}@{first}"
    with pytest.raises(
        ValueError, match=r"user/idh on the hub has no revision v9: name one that its page lists, or none"
    ):
        local_path(f"{SOURCE}@v9")


def test_a_snapshot_stays_the_same_for_one_process(server, forms):
    push(forms / "idh")
    before = local_path(SOURCE)
    push(forms / "pretrain")
    assert local_path(SOURCE) == before


def test_a_second_push_replaces_all_and_leaves_other_files(server, forms):
    push(forms / "idh")
    repository = server.repositories[NAME]
    repository.commits["1" * 40] = repository.commits[repository.sha("main")] | {"figure.png": b"theirs"}
    push(forms / "pretrain")
    assert sorted(repository.commits[repository.sha("main")]) == [
        "README.md", "config.json", "figure.png", "model.safetensors",
    ]  # fmt: skip


def test_other_files_in_the_folder_are_not_uploaded(server, forms, tmp_path):
    folder = shutil.copytree(forms / "idh", tmp_path / "idh")
    for name in (
        "folds.json",
        "predictions.csv",
        "fold_0/checkpoint-1.pth",
        "fold_0/predictions.csv",
        "vis/sub-01.png",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("sub-01")
    push(folder)
    pushed = server.repositories[NAME].commits[server.repositories[NAME].sha("main")]
    assert sorted(pushed) == sorted(path.relative_to(forms / "idh").as_posix() for path in files_of(forms / "idh"))


def test_a_private_push_needs_a_private_repository(server, forms, tmp_path):
    push(forms / "pretrain", "user/secret", "--private")
    assert server.repositories["user/secret"].private
    assert local_path("hf-hub:user/secret").is_dir()
    with reached(server.url, tmp_path / "stranger", token=None):
        message = r"the hub has no model user/secret that you may read: .* log in with `hf auth login`, or set HF_TOKEN"
        with pytest.raises(ValueError, match=message):
            local_path("hf-hub:user/secret")
    push(forms / "pretrain", "user/open")
    with pytest.raises(
        ValueError, match="user/open exists and is public: make it private on its page, or choose another"
    ):
        push(forms / "idh", "user/open", "--private")
    assert len(server.repositories["user/open"].commits) == 2  # the empty one and the first push


def spoilt(forms, tmp_path, spoil):
    folder = shutil.copytree(forms / "idh", tmp_path / "spoilt")
    spoil(folder)
    return folder


SPOILS = {
    "no card": (lambda folder: (folder / "README.md").unlink(), r"README\.md, the model card, is missing: export"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"spoilt/model\.safetensors is missing"),
    "a damaged fold": (lambda folder: (folder / "fold_1" / "model.safetensors").write_bytes(b"?"),
                       r"fold_1/model\.safetensors is damaged"),
    "a run": (lambda folder: (folder / "config.json").write_text("{}"), r"config\.json describes no exported model"),
}  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_folder_that_is_not_whole_is_not_pushed(server, forms, tmp_path, spoil):
    plant, message = SPOILS[spoil]
    with pytest.raises(ValueError, match=message):
        push(spoilt(forms, tmp_path, plant))
    assert server.requests == []


def test_the_error_without_a_login_says_how_to_log_in(server, forms, tmp_path):
    message = "not logged in to the hub: log in with `hf auth login`, or set HF_TOKEN"
    with reached(server.url, tmp_path / "stranger", token=None), pytest.raises(ValueError, match=message):
        push(forms / "idh")
    assert server.requests == []
    message = r"refuses user/idh \(401 .*\): log in .* with a token that may do this"
    with reached(server.url, tmp_path / "stranger", token="hf_wrong"), pytest.raises(ValueError, match=message):
        push(forms / "idh")
    with pytest.raises(ValueError, match=r"refuses other/idh \(403 .*may not create.*\): log in"):
        push(forms / "idh", "other/idh")
    with pytest.raises(ValueError, match="idh is not the name of a model on the hub: give user/name"):
        push(forms / "idh", "idh")


def test_an_unreachable_hub_and_a_failing_hub(server, forms, tmp_path, monkeypatch):
    push(forms / "pretrain")
    known = local_path(SOURCE)
    hub._snapshot.cache_clear()
    server.failing = 503
    with pytest.raises(ValueError, match=r"the hub refuses user/new \(503 .*try again later|the hub cannot be reached"):
        local_path("hf-hub:user/new")
    monkeypatch.setattr(huggingface_hub.utils._http, "time", type("NoWait", (), {"sleep": lambda *_: None}))
    with pytest.raises(ValueError, match=r"the hub refuses user/idh \(503"):
        push(forms / "pretrain")
    with reached("http://127.0.0.1:9", tmp_path / "home"):
        assert local_path(SOURCE) == known  # from the cache
        with pytest.raises(ValueError, match=r"the hub cannot be reached, and user/new is not in the cache"):
            local_path("hf-hub:user/new")
        with pytest.raises(ValueError, match=r"the hub cannot be reached"):
            push(forms / "pretrain")


def test_a_foreign_or_damaged_model_on_the_hub_is_refused(server, forms):
    push(forms / "pretrain")
    repository = server.repositories[NAME]
    files = repository.commits[repository.sha("main")]
    repository.commits["2" * 40] = files | {"model.safetensors": files["model.safetensors"][:-1] + b"\0"}
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged, .*: download it again, or write it again"):
        read_checkpoint(SOURCE)
    repository.commits["3" * 40] = files | {"config.json": b'{"architecture": "resnet18"}'}
    hub._snapshot.cache_clear()
    with pytest.raises(ValueError, match=r"config\.json describes the model resnet18 of another program"):
        read_checkpoint(SOURCE)
    with pytest.raises(ValueError, match="the hub has no model user/nobody that you may read: check the name"):
        read_checkpoint("hf-hub:user/nobody")


def test_names_of_the_hub_and_paths_are_told_apart(tmp_path):
    assert is_hub_name(Path("hf-hub:user/name@v1.0"))
    assert not is_hub_name(tmp_path)
    assert local_path(tmp_path) == tmp_path
    assert pinned("runs/../a.pth") == str(Path.cwd() / "a.pth")


@pytest.mark.parametrize("name", ["hf-hub:", "hf-hub:name", "hf-hub:a/b/c", "hf-hub:a/b@", "hf-hub:a/b c"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match=r"is not the name of a model on the hub: write hf-hub:user/name"):
        local_path(name)
