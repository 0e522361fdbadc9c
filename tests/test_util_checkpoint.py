import argparse
import io
import pickle

import pytest
import torch

from models import create_model
from tests.conftest import SMALL
from util.checkpoint import load_pretrained, load_weights, read_checkpoint, save_checkpoint


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


def test_another_grid_is_resampled_and_said(tmp_path, caplog):
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


def test_files_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path / "m.pth"
    with pytest.raises(ValueError, match="does not exist"):
        read_checkpoint(path)
    buffer = io.BytesIO()
    torch.save({"model": {"a": torch.zeros(1000)}}, buffer)
    for content in (buffer.getvalue()[:900], b"", b"not a checkpoint", pickle.dumps(print, protocol=2)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="holds a list"):
        read_checkpoint(path)


class Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, capsys):
    torch.save({"model": {}, "args": Code()}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match="refuse to run"):
        read_checkpoint(tmp_path / "m.pth")
    assert capsys.readouterr().out == ""


def test_our_own_checkpoints_load_whole_or_not_at_all(tmp_path):
    save_checkpoint(tmp_path / "m.pth", {"model": classifier().state_dict(), "epoch": 3})
    target = classifier()
    assert load_weights(target, tmp_path / "m.pth")["epoch"] == 3
    with pytest.raises(ValueError, match="not of this model"):
        load_weights(mae(), tmp_path / "m.pth")


def test_a_failed_save_keeps_the_old_file(tmp_path):
    path = tmp_path / "m.pth"
    save_checkpoint(path, {"model": {}, "epoch": 1})
    with pytest.raises(Exception, match=r"pickle|local"):
        save_checkpoint(path, {"model": lambda: None})
    assert read_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["m.pth"]
