import argparse
import json
import math
from dataclasses import asdict

import pytest
import safetensors.torch
import torch

from models import create_model
from tests.conftest import FIXTURES, SMALL
from util.checkpoint.files import save_safetensors
from util.checkpoint.loading import load_pretrained, load_weights, save_checkpoint


def mae(**fields):
    return create_model("mae_3d_vim_small_patch8", **{**SMALL, **fields})


def classifier(**fields):
    return create_model("vim_3d_small_patch8", **{**SMALL, **fields})


def test_autoencoder_into_classifier_reports_exactly_what_it_left_out(tmp_path):
    source, target = mae(), classifier()
    save_checkpoint(tmp_path / "m.pth", {"model": source.state_dict()})
    head = target.head.weight.clone()
    report = load_pretrained(target, tmp_path / "m.pth")
    assert set(report.missing) == {"head.weight", "head.bias"}
    assert report.unexpected == report.resized == []
    assert all(key.startswith("decoder_") or key == "mask_token" for key in report.ignored)
    torch.testing.assert_close(target.blocks[1].mixer.A_b_log, source.blocks[1].mixer.A_b_log)
    torch.testing.assert_close(target.pos_embed.data, source.pos_embed)
    assert torch.equal(target.head.weight, head)


def test_the_published_format_loads(tmp_path):
    """A pickle of {model, optimizer, epoch, scaler, args: Namespace} with class token and rope buffers."""
    state = mae(fidelity="paper").state_dict() | {"cls_token": torch.zeros(1, 1, 48), "rope.freqs": torch.zeros(12)}
    args = argparse.Namespace(input_size=[16, 24, 32], model="mae_3d_vim_small_patch8")
    save_checkpoint(tmp_path / "p.pth", {"model": state, "optimizer": {}, "epoch": 999, "scaler": {}, "args": args})
    report = load_pretrained(classifier(), tmp_path / "p.pth")
    assert {"cls_token", "rope.freqs", "mask_token"} <= set(report.ignored)


def test_another_grid_is_resampled_and_logged(tmp_path, caplog):
    content = {"model": mae(img_size=16).state_dict(), "config": {"model": {"fields": {"img_size": [16, 16, 16]}}}}
    save_checkpoint(tmp_path / "m.pth", content)
    with caplog.at_level("INFO", "util.checkpoint"):
        report = load_pretrained(classifier(), tmp_path / "m.pth")
    assert report.resized == ["pos_embed: resampled from grid (2, 2, 2) to (2, 3, 4)"]
    assert "resampled" in caplog.text


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda s: s | {"extra.weight": torch.zeros(1)}, "unknown keys extra.weight"),
     (lambda s: {k: v for k, v in s.items() if k != "norm_f.weight"}, "lacks norm_f.weight"),
     (lambda s: s | {"norm_f.weight": torch.zeros(3)}, "other shapes of norm_f.weight")],
)  # fmt: skip
def test_a_wrong_checkpoint_never_loads_unnoticed(tmp_path, damage, message):
    save_checkpoint(tmp_path / "m.pth", {"model": damage(mae().state_dict())})
    with pytest.raises(ValueError, match=message):
        load_pretrained(classifier(), tmp_path / "m.pth")


def test_our_own_checkpoints_load_whole_or_not_at_all(tmp_path):
    save_checkpoint(tmp_path / "m.pth", {"model": classifier().state_dict(), "epoch": 3})
    target = classifier()
    assert load_weights(target, tmp_path / "m.pth")["epoch"] == 3
    with pytest.raises(ValueError, match="not of this model"):
        load_weights(mae(), tmp_path / "m.pth")


def ours(path, model):
    """One of our checkpoints: it records the model's fields."""
    config = {"model": {"name": "mae_3d_vim_small_patch8", "fields": asdict(model.config)}}
    save_checkpoint(path, {"model": model.state_dict(), "config": config})
    return path


def test_a_run_of_ours_of_another_fidelity_is_refused_with_the_flag_to_pass(tmp_path):
    """Its config records a choice; without --fidelity the next program would forget it unnoticed."""
    for own, other in (("paper", "corrected"), ("corrected", "paper")):
        path = ours(tmp_path / "m.pth", mae(fidelity=own))
        for target in (mae, classifier):
            with pytest.raises(
                ValueError, match=rf"trained with fidelity={own}.*computes {other}: pass --fidelity {own}"
            ):
                load_pretrained(target(fidelity=other), path)
            load_pretrained(target(fidelity=own), path)
            load_pretrained(target(fidelity=other), path, any_fidelity=True)


@pytest.mark.parametrize(
    ("trained", "wanted", "fix"), [("hilbert", None, "--scan_order hilbert"), (None, "snake", "leave out")]
)
def test_another_scan_order_gives_a_warning(tmp_path, caplog, trained, wanted, fix):
    source = mae(scan_order=trained)
    config = {"model": {"name": "mae_3d_vim_small_patch8", "fields": asdict(source.config)}}
    save_checkpoint(tmp_path / "m.pth", {"model": source.state_dict(), "config": config})
    load_pretrained(classifier(scan_order=trained), tmp_path / "m.pth")
    assert "scan order" not in caplog.text
    load_pretrained(classifier(scan_order=wanted), tmp_path / "m.pth")
    assert fix in caplog.text


@pytest.mark.parametrize("write", [save_checkpoint, save_safetensors])
def test_published_weights_load_at_either_fidelity_with_a_log_line(tmp_path, caplog, write):
    path = tmp_path / ("m.pth" if write is save_checkpoint else "m.safetensors")
    args = argparse.Namespace(input_size=[16, 24, 32])
    write(path, {"model": mae(fidelity="paper").state_dict(), "args": args})
    with caplog.at_level("INFO", "util.checkpoint"):
        report = load_pretrained(mae(), path)
    assert report.resized == ["decoder_pos_embed: class-slot row dropped"]
    assert "trained with fidelity=paper (published: its options are an argparse.Namespace)" in caplog.text
    assert "--fidelity paper would compute as in its training" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "util.checkpoint"):
        assert load_pretrained(mae(fidelity="paper"), path).resized == []
    assert "fidelity" not in caplog.text


def test_safetensors_without_our_metadata_load_and_log_what_is_unknown(tmp_path, caplog):
    source, target = mae(), classifier()
    safetensors.torch.save_file(source.state_dict(), tmp_path / "m.safetensors")
    with caplog.at_level("INFO", "util.checkpoint"):
        assert load_pretrained(target, tmp_path / "m.safetensors").missing == ["head.weight", "head.bias"]
    assert "does not record its img_size: taken to be the model's" in caplog.text
    torch.testing.assert_close(target.blocks[1].mixer.A_b_log, source.blocks[1].mixer.A_b_log)
    with pytest.raises(ValueError, match="another img_size and does not record it"):
        load_pretrained(classifier(img_size=16), tmp_path / "m.safetensors")


MAE_KEYS = "keys_mae_3d_vim_small_patch16.json"
CLASSIFIER_KEYS = "keys_vim_3D_small_patch16_stride16_224_bimambav2_final_pool_mean_abs_pos_embed_div2.json"
HEAD = {"head.weight", "head.bias"}


def decoder_keys(keys):
    return {key for key in keys if key.startswith("decoder_") or key in ("mask_token", "cls_token", "rope.freqs")}


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # weights go to a model on the meta device
@pytest.mark.parametrize("fidelity", ["corrected", "paper"])
@pytest.mark.parametrize(
    ("file", "name", "missing", "ignored"),
    [(MAE_KEYS, "mae_3d_vim_small_patch16", set(), lambda keys: {"cls_token", "rope.freqs", "decoder_rope.freqs"}),
     (MAE_KEYS, "vim_3d_small_patch16", HEAD, decoder_keys),
     (CLASSIFIER_KEYS, "vim_3d_small_patch16", set(), lambda keys: {"rope.freqs_cos", "rope.freqs_sin"})],
    ids=["autoencoder", "autoencoder into classifier", "classifier"],
)  # fmt: skip
def test_published_keys_at_160_load_with_exactly_the_report_of_the_method(
    tmp_path, fidelity, file, name, missing, ignored
):
    """docs/method.md#loading-weights: missing exactly the head, ignored exactly the decoder's parameters, cls_token,
    mask_token and rope buffers, at either fidelity."""
    shapes = json.loads((FIXTURES / file).read_text())
    state = {key: torch.zeros(()).expand(shape) for key, shape in shapes.items()}  # one number each on disk
    content = {"model": state, "optimizer": {}, "epoch": 999, "scaler": {}, "args": argparse.Namespace(input_size=160)}
    save_checkpoint(tmp_path / "checkpoint-999.pth", content)
    with torch.device("meta"):
        model = create_model(name, img_size=160, fidelity=fidelity)
    report = load_pretrained(model, tmp_path / "checkpoint-999.pth")
    assert (set(report.missing), report.unexpected) == (missing, [])
    assert set(report.ignored) == ignored(shapes)
    shortened = fidelity == "corrected" and name.startswith("mae")
    assert report.resized == (["decoder_pos_embed: class-slot row dropped"] if shortened else [])


def test_a_published_classifier_is_no_autoencoder(tmp_path):
    state = {
        key: torch.zeros(()).expand(shape)
        for key, shape in json.loads((FIXTURES / CLASSIFIER_KEYS).read_text()).items()
    }
    save_checkpoint(tmp_path / "m.pth", {"model": state, "args": argparse.Namespace(input_size=160)})
    with torch.device("meta"):
        model = create_model("mae_3d_vim_small_patch16")
    with pytest.raises(ValueError, match=r"m\.pth: the checkpoint is a classifier and has no decoder"):
        load_pretrained(model, tmp_path / "m.pth")


@pytest.mark.parametrize("load", [load_pretrained, load_weights])
def test_weights_that_are_not_finite_are_refused(tmp_path, load):
    model = create_model("mae_3d_vim_small_patch8", **SMALL)
    state = model.state_dict()
    state["decoder_pred.bias"] = torch.full_like(state["decoder_pred.bias"], math.nan)
    save_checkpoint(tmp_path / "m.pth", {"model": state})
    with pytest.raises(ValueError, match=r"m\.pth: 1 of \d+ tensors are not finite, the first is decoder_pred\.bias"):
        load(model, tmp_path / "m.pth")


def test_another_order_of_contrasts_is_warned_of(tmp_path, caplog):
    source, data = mae(), {"contrasts": ["t1", "t2"], "normalize": "zscore"}
    config = {"model": {"name": "mae_3d_vim_small_patch8", "fields": asdict(source.config)}, "data": data}
    save_checkpoint(tmp_path / "m.pth", {"model": source.state_dict(), "config": config})
    load_pretrained(classifier(), tmp_path / "m.pth", data=data)
    assert "was trained with" not in caplog.text
    load_pretrained(classifier(), tmp_path / "m.pth", data={**data, "contrasts": ["t2", "t1"]})
    assert "was trained with contrasts t1, t2, here it is t2, t1" in caplog.text
