"""Checkpoint files: written content is read back; damaged, foreign and dangerous files are refused with a message."""

import argparse
import json
import os
import random

import pytest
import safetensors.torch
import torch

from util.checkpoint.files import METADATA, read_checkpoint, save_checkpoint, save_safetensors

CONTENT = {
    "model": {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.tensor([1, 2], dtype=torch.int64)},
    "epoch": 7,
    "config": {"model": {"name": "mae", "fields": {"img_size": [16, 24, 32]}}},
    "args": argparse.Namespace(input_size=160, model="mae", blr=2.5e-4, resume=""),
}
WRITERS = [(save_checkpoint, "m.pth"), (save_safetensors, "m.safetensors")]


@pytest.mark.parametrize(("save", "name"), WRITERS)
def test_both_formats_keep_tensors_config_epoch_and_published_options(tmp_path, save, name):
    save(tmp_path / name, CONTENT)
    found = read_checkpoint(tmp_path / name)
    for key, value in CONTENT["model"].items():
        assert torch.equal(found["model"].pop(key), value)
    assert found == {**CONTENT, "model": {}}


def test_safetensors_take_views_tied_and_transposed_weights(tmp_path):
    whole = torch.randn(4, 6)
    model = {"whole": whole, "tied": whole, "view": whole[1:], "turned": whole.T}
    save_safetensors(tmp_path / "m.safetensors", {"model": model})
    found = read_checkpoint(tmp_path / "m.safetensors")["model"]
    assert all(torch.equal(found[key], value) for key, value in model.items())


def test_what_json_does_not_know_is_kept_as_text(tmp_path):
    save_safetensors(tmp_path / "m.safetensors", {"model": {}, "config": {"device": torch.device("cpu")}})
    assert read_checkpoint(tmp_path / "m.safetensors")["config"] == {"device": "cpu"}


def test_foreign_safetensors_are_read_as_weights_only(tmp_path):
    safetensors.torch.save_file(CONTENT["model"], tmp_path / "m.safetensors", {"format": "pt"})
    assert read_checkpoint(tmp_path / "m.safetensors").keys() == {"model"}


@pytest.mark.parametrize(
    ("said", "message"),
    [("{", "no safetensors file with JSON"), ("[" * 100_000, "no safetensors file with JSON"), ("[1]", "hold a list")],
    ids=["cut", "deep", "list"],
)
def test_damaged_metadata_of_ours_are_named(tmp_path, said, message):
    safetensors.torch.save_file(CONTENT["model"], tmp_path / "m.safetensors", {METADATA: said})
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("save", "name"), WRITERS)
def test_truncated_and_damaged_files_are_refused_with_a_message(tmp_path, save, name):
    """Cut anywhere: an error that names the file. One byte changed anywhere: that error, or other numbers."""
    save(tmp_path / name, CONTENT)
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole) - 1, max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"{name} cannot be read: it is truncated"):
            read_checkpoint(tmp_path / name)
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x15
        (tmp_path / name).write_bytes(damaged)
        try:
            read_checkpoint(tmp_path / name)
        except ValueError as error:
            assert name in str(error)  # noqa: PT017  nothing but ValueError may leave


def test_a_header_with_a_false_size_is_refused(tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"1234")
    with pytest.raises(ValueError, match="truncated"):
        read_checkpoint(tmp_path / "m.safetensors")


class Code:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_refused_explained_and_not_run(tmp_path, zipped):
    trap = tmp_path / "trap"
    content = {"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(inside=Code(trap))}
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"would run code \(\w+\.mkdir\), which is refused"):
        read_checkpoint(tmp_path / "m.pth")
    assert not trap.exists()
    with pytest.raises(ValueError, match="would run code"):  # the name of the file changes nothing
        read_checkpoint((tmp_path / "m.pth").rename(tmp_path / "m.bin"))
    torch.load(tmp_path / "m.bin", weights_only=False)
    assert trap.exists()  # the trap was a real one


@pytest.mark.parametrize(
    ("content", "message"),
    [([1, 2], "holds a list"), ({"model": {"a": 1}}, "holds no weights.*has model"),
     ({"weights": {"a": torch.zeros(1)}}, "holds no weights.*has weights"), ({"model": None}, "no weights")],
    ids=["list", "numbers", "other nesting", "nothing"],
)  # fmt: skip
def test_the_error_for_a_dictionary_without_weights_lists_its_keys(tmp_path, content, message):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=message):
        read_checkpoint(tmp_path / "m.pth")


def test_bare_weights_load(tmp_path):
    torch.save(CONTENT["model"], tmp_path / "m.pth")
    assert read_checkpoint(tmp_path / "m.pth")["model"].keys() == CONTENT["model"].keys()


@pytest.mark.parametrize(("save", "name"), WRITERS)
def test_a_failed_save_keeps_the_old_file(tmp_path, save, name):
    save(tmp_path / name, {"model": {}, "epoch": 1})
    with pytest.raises(Exception, match=r"pickle|local|attribute"):
        save(tmp_path / name, {"model": {"a": lambda: None}})
    assert read_checkpoint(tmp_path / name)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_flipped_bit_of_a_published_checkpoint_is_found(tmp_path):
    """Its archive has a CRC-32 per part; flips elsewhere are refused or leave the weights as they are."""
    path = tmp_path / "published.pth"
    weights = {"model": {"a.weight": torch.arange(1000.0)}, "epoch": 3}
    torch.save(weights, path)
    whole, draw = path.read_bytes(), random.Random(0)
    messages = []
    for _ in range(100):
        place = draw.randrange(len(whole))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_checkpoint(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert torch.equal(found["model"]["a.weight"], weights["model"]["a.weight"])
    assert all("published.pth" in message for message in messages)
    assert len(messages) >= 70  # the tensor is most of the file


def test_an_archive_without_checksums_is_read(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT["model"], tmp_path / "m.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(tmp_path / "m.pth")["model"]["b"], CONTENT["model"]["b"])


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("wrapper", ["model", "state_dict"])
def test_prefixes_and_wrappers_of_others_are_left_out_and_said(tmp_path, prefix, wrapper, caplog):
    torch.save({wrapper: {prefix + name: value for name, value in CONTENT["model"].items()}}, tmp_path / "m.pth")
    with caplog.at_level("INFO", "util.checkpoint.files"):
        found = read_checkpoint(tmp_path / "m.pth")
    assert found["model"].keys() == CONTENT["model"].keys()
    assert "state_dict" not in found
    assert f"the keys' prefix {prefix.split('.')[0]}. is left out" in caplog.text


def test_a_prefix_that_only_some_keys_have_stays(tmp_path):
    torch.save({"module.a": torch.ones(1), "b": torch.ones(1)}, tmp_path / "m.pth")
    assert read_checkpoint(tmp_path / "m.pth")["model"].keys() == {"module.a", "b"}
