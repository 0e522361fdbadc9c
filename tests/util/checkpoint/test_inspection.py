"""The lines that inspect prints, for checkpoints of ours, published ones and others."""

import argparse
from dataclasses import asdict

import torch

from models import create_model
from tests.conftest import SMALL
from util.checkpoint.files import save_checkpoint
from util.checkpoint.inspection import inspect_checkpoint


def inspect(path):
    return "\n".join(inspect_checkpoint(path))


def save_ours(path, name, **fields):
    model = create_model(name, **SMALL, **fields)
    config = {"kind": "pretrain", "model": {"name": name, "fields": asdict(model.config)}}
    save_checkpoint(path, {"model": model.state_dict(), "epoch": 3, "config": config})
    return path


def test_what_is_known_and_how(tmp_path):
    name = "mae_3d_vim_small_patch8"
    state = create_model(name, **SMALL, fidelity="paper").state_dict() | {"rope.freqs": torch.zeros(12)}
    args = argparse.Namespace(input_size=[16, 24, 32], model=name)
    save_checkpoint(tmp_path / "m.pth", {"model": state, "epoch": 999, "args": args})
    text = inspect(tmp_path / "m.pth")
    for expected in ("masked autoencoder", "embed_dim=48", "depth=2", "mixer=mamba", "patch_size=8",
                     "2 x 3 x 4 tokens", "epoch     999", "mae_3d_vim_small_patch8 (args.model)",
                     "paper (published: its options are", "args.input_size", "float32",
                     "autoencoder, --fidelity corrected: whole; ignored: 1 keys (rope); decoder_pos_embed: class-slot",
                     "autoregressive model, --fidelity corrected: refused: the checkpoint was pre-trained with",
                     "classifier, --fidelity paper: starting fresh: head.weight, head.bias; ignored: "):  # fmt: skip
        assert expected in text, expected


def test_what_is_not_known(tmp_path):
    torch.save(create_model("vim_3d_small_patch8", **SMALL).state_dict(), tmp_path / "m.pth")
    text = inspect(tmp_path / "m.pth")
    assert "24 tokens, their grid is not recorded" in text
    assert "fidelity  not recorded" in text
    assert "no registered name has these shapes" in text
    assert "autoencoder, --fidelity paper: refused: the checkpoint is a classifier and has no decoder" in text
    assert "classifier, --fidelity paper: whole" in text
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert "refused: the checkpoint holds no model of this project" in inspect(tmp_path / "other.pth")


def test_a_run_of_another_fidelity_is_refused_with_the_option_to_pass(tmp_path):
    text = inspect(save_ours(tmp_path / "m.pth", "mae_3d_vim_small_patch8", fidelity="paper"))
    assert "--fidelity corrected: refused: it was trained with fidelity=paper" in text
    assert "the model computes corrected: pass --fidelity paper" in text


def test_an_autoregressive_checkpoint_loads_into_its_own_kind_and_a_classifier(tmp_path):
    text = inspect(save_ours(tmp_path / "m.pth", "ar_3d_vim_small_patch8"))
    assert "autoregressive model, --fidelity corrected: whole" in text
    assert "autoencoder, --fidelity corrected: refused: the checkpoint was pre-trained with --objective ar" in text
    assert "14 parameters of the backward direction" in text


def test_a_mamba2_checkpoint_shows_its_mixer_and_name(tmp_path):
    with torch.device("meta"):
        shapes = create_model("vim2_3d_tiny_patch16").state_dict()
    state = {key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()}
    torch.save(state, tmp_path / "m.pth")
    text = inspect(tmp_path / "m.pth")
    assert "mixer=mamba2" in text
    assert "name      vim2_3d_tiny_patch16" in text


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = create_model("vim_3d_small_patch8", **SMALL).state_dict()
    state["norm_f.weight"][0] = torch.nan
    torch.save(state, tmp_path / "m.pth")
    assert (
        inspect(tmp_path / "m.pth")
        .splitlines()[-1]
        .startswith(f"load_pretrained refuses it: 1 of {len(state)} tensors are not finite, the first is norm_f.weight")
    )
