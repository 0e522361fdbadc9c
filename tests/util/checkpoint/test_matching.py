"""Forecasts of load_pretrained from a checkpoint file alone, compared with the real load."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch

from models import create_model, list_models
from models.registry import find_name, sibling_fields
from tests.conftest import FIXTURES
from tests.helpers.kinds import FAMILIES, small
from util.checkpoint.files import read_checkpoint, save_checkpoint
from util.checkpoint.loading import load_pretrained
from util.checkpoint.matching import expected_report, is_published, registry_name

# of each kind of model, how its registered names begin
PREFIXES = {"masked autoencoder": "mae_3d_", "autoregressive model": "ar_3d_", "classifier": ""}
FIDELITIES = ("corrected", "paper")


def on_meta(name, **fields):
    with torch.device("meta"):
        return create_model(name, **fields)


def published(file):
    """A published checkpoint's content, without values."""
    shapes = json.loads((FIXTURES / file).read_text())
    return {"model": {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}}


def stem_of(family):
    """mae_3d_vim, ar_3d_vim and vim_3d -> vim."""
    return family.removeprefix("mae_3d_").removeprefix("ar_3d_").removesuffix("_3d")


def target_name(family, target):
    """The registered small model of another kind in the same family, or None."""
    prefix, stem = PREFIXES[target], stem_of(family)
    name = f"{prefix}{stem}_small_patch8" if prefix else f"{stem}_3d_small_patch8"
    return name if name in list_models() else None


@pytest.mark.parametrize("name", list_models())
def test_the_tensors_show_every_registered_name(name):
    assert registry_name({"model": on_meta(name).state_dict()}) == (name, "names and shapes of the tensors")


def test_a_recorded_name_has_priority_over_the_tensors():
    state = on_meta("mae_3d_vim_small_patch16").state_dict()
    content = {"model": state, "config": {"model": {"name": "mae_3d_vim_tiny_patch8"}}}
    assert registry_name(content) == ("mae_3d_vim_tiny_patch8", "our config in the file")


def test_no_name_fits_other_fields_or_foreign_weights():
    assert registry_name({"model": on_meta("mae_3d_vim_tiny_patch8", depth=3).state_dict()}).value is None
    foreign = {"conv1.weight": torch.zeros(4, 3, 7, 7), "patch_embed.proj.weight": torch.zeros(4, 3, 2, 2)}
    assert registry_name({"model": foreign}).value is None


def test_published_checkpoints_are_recognised():
    mae = published("keys_mae_3d_vim_small_patch16.json")
    assert registry_name(mae).value == "mae_3d_vim_small_patch16"
    assert is_published(mae)
    (file,) = FIXTURES.glob("keys_vim_3D*.json")
    assert registry_name(published(file.name)).value == "vim_3d_small_patch16"
    assert is_published({"model": {}, "args": argparse.Namespace()})
    assert not is_published({"model": on_meta("vim_3d_small_patch16").state_dict()})


def outcome(load):
    """The report of a load, or the text of its ValueError."""
    try:
        return load()
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore:.*which is a no-op")  # a forecast needs no values
@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "bare"])
@pytest.mark.parametrize("target", PREFIXES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_forecast_is_the_report_of_the_real_load(tmp_path, family, target, recorded):
    """Every family into every kind of model, at both fidelities, with our config in the file and without."""
    source_name, path = f"{family}_small_patch8", tmp_path / "m.pth"
    heads = {} if recorded else {"attention_heads": 16, "attention_head_dim": 128}  # what no shape shows
    source = small(source_name, **heads)
    content = {"model": source.state_dict()}
    if recorded:
        content["config"] = {"model": {"name": source_name, "fields": asdict(source.config)}}
    save_checkpoint(path, content)
    content, name = read_checkpoint(path), target_name(family, target)
    fields = {"directions": source.config.directions} if target == "classifier" and not recorded else {}
    for fidelity in FIDELITIES:
        forecast = outcome(lambda: expected_report(content, target, fidelity))  # noqa: B023
        if name is None:  # this family has no autoregressive model
            assert isinstance(forecast, str)
            continue
        real = outcome(lambda: load_pretrained(small(name, fidelity=fidelity, **heads, **fields), path))  # noqa: B023
        if isinstance(real, str):
            assert forecast.removeprefix("there is no such model: ") == real.removeprefix(f"checkpoint {path}: ")
        else:
            assert forecast == real


def test_the_backward_direction_that_starts_as_a_copy_is_forecast():
    content = {"model": small("ar_3d_vim_small_patch8").state_dict()}
    content["config"] = {"model": {"name": "ar_3d_vim_small_patch8"}}
    report = expected_report(content, "classifier", "corrected")
    assert report.missing == ["head.weight", "head.bias"]
    assert report.resized[0].startswith("14 parameters of the backward direction")
    assert expected_report(content, "autoregressive model", "corrected").missing == []


def test_left_out_tokens_of_missing_contrasts_are_forecast():
    content = {"model": small("mae_3d_vim_small_patch8", contrast_dropout=0.3).state_dict()}
    assert "--contrast_dropout" in expected_report(content, "classifier", "corrected").resized[0]


def test_weights_that_fit_no_model_are_refused():
    state = small("mae_3d_vim_small_patch8").state_dict()
    far = state | {"blocks.99999999999.norm.weight": torch.zeros(48)}
    with pytest.raises(ValueError, match=r"numbered up to 99999999999, and there are 3"):
        expected_report({"model": far}, "classifier", "corrected")
    scalars = {key: torch.zeros(()) for key in state}
    with pytest.raises(ValueError, match="no model of this project"):
        expected_report({"model": scalars}, "classifier", "corrected")
    empty = state | {"patch_embed.proj.weight": torch.zeros(0, 4, 0, 0, 0)}
    with pytest.raises(ValueError, match="there is no such model"):
        expected_report({"model": empty}, "classifier", "corrected")
    for field, value in (("attention_heads", "two"), ("expand", 10**30), ("expand", -1), ("d_conv", None)):
        content = {"model": state, "config": {"model": {"fields": {field: value}}}}
        with pytest.raises(ValueError, match="there is no such model"):
            expected_report(content, "classifier", "corrected")


def test_siblings_share_family_size_and_patch():
    assert sibling_fields("mae_3d_vim_small_patch8", "classifier")["mixer"] == "mamba"
    assert sibling_fields("mae_3d_vim_small_patch8", "autoregressive model")["directions"] == "forward"
    assert sibling_fields("mae_3d_bivim2_small_patch8", "autoregressive model") == {}
    assert sibling_fields(None, "classifier") == {}
    assert find_name({}) is None
