"""docs/method.md agrees with the models: tables, shapes, names, and rules that a reader would check by hand."""

import math
import re
from pathlib import Path

import pytest
import torch

from models import create_model
from models.blocks.mixers import BiMamba
from models.classifier import ENCODER_FIELDS
from models.config import MaskingName, ModelConfig, ScanOrder
from models.registry import FAMILIES, PATCH_SIZES, SIZES, WIDER, WIDTHS
from models.tokens.masking import count_kept

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
SMALL = {"img_size": 16, "embed_dim": 32, "depth": 2, "decoder_embed_dim": 24, "decoder_depth": 1}


def table(header: str) -> list[list[str]]:
    """Cells of the rows of the table whose first line begins with `header`."""
    lines = TEXT[TEXT.index(f"\n| {header}") + 1 :].split("\n\n")[0].splitlines()
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_families_are_those_of_the_registry():
    rows = {family: cells for family, *cells in table("family")}
    assert rows.keys() == FAMILIES.keys()
    for family, (mixer, directions, rotary, states, attention, note) in rows.items():
        config = create_model(f"{family}_3d_tiny_patch32").config
        assert (mixer, directions, rotary) == (config.mixer, config.directions, config.rotary)
        assert int(states) == config.d_state
        assert tuple(map(int, filter(None, attention.split(", ")))) == config.attention_layers
        assert ("4E" in note) == (config.mlp_ratio == 4), family


def test_sizes_are_those_of_the_registry():
    rows = {size: list(map(int, cells)) for size, *cells in table("size |")}
    assert rows == {size: [row[name] for name in ("embed_dim", "depth", "num_heads", *WIDTHS[3:])]
                    for size, row in SIZES.items()}  # fmt: skip
    wider = WIDER["small"]
    assert f"`small` has E = {wider['embed_dim']} and Ed = {wider['decoder_embed_dim']}" in TEXT
    assert list(WIDER) == ["small"]
    assert f"P is {', '.join(map(str, PATCH_SIZES[:-1]))} or {PATCH_SIZES[-1]}" in TEXT


def test_tokens_of_each_patch_size():
    for patch_size, tokens in table("patch size"):
        assert ModelConfig(patch_size=int(patch_size)).tokens == int(tokens.replace(",", ""))


def test_kept_tokens():
    assert "1,000 tokens at ratio 0.9 give K = 99" in TEXT
    assert count_kept(1000, 0.9) == 99


def test_parameters_of_the_mixer():
    mixer = BiMamba(96, 2, d_state=16, d_conv=4, expand=2)
    letters = {"E": 96, "I": 192, "N": 16, "R": math.ceil(96 / 16)}
    found = {}
    for names, shape in table("parameter | shape"):
        sizes = re.sub(r"(?<=\d)(?=[A-Z])", "*", shape.strip("()"))
        values = tuple(eval(size, {}, letters) for size in sizes.split(", "))
        found |= dict.fromkeys(names.split(", "), values)
    assert found == {name: tuple(parameter.shape) for name, parameter in mixer.named_parameters()}


@pytest.mark.parametrize("name", ["mae_3d_vim_tiny_patch8", "vim_3d_tiny_patch8", "mae_3d_bivim2_tiny_patch8"])
def test_what_is_not_decayed(name):
    model = create_model(name, **SMALL, contrast_dropout=0.1, head_dim=16)
    (sentence,) = re.findall(r"Weight decay leaves out (.*?)\. `--layer", TEXT, re.DOTALL)
    told = set(re.findall(r"`([\w.]+)`", sentence))
    named = {re.sub(r"_b(?=_|$)", "", key.split(".mixer.")[-1]) for key in model.no_weight_decay()}
    assert named <= told
    assert {"A_log", "D", "pos_embed", "mask_token", "patch_embed.missing_contrast"} <= named


def test_drop_path_rates():
    model = create_model("mae_3d_vim_tiny_patch8", **SMALL | {"depth": 4}, drop_path_rate=0.3)
    assert "`[0, *linspace(0, rate, depth)][i]`" in TEXT
    rates = [0, *torch.linspace(0, 0.3, 4).tolist()]
    assert [block.drop_path.drop_prob for block in model.blocks] == pytest.approx(rates[:4])
    assert model.blocks.final_drop_path == 0.3


def test_orders_and_masks_are_those_of_the_config():
    orders = {order for cells in table("`scan_order`") for order in cells[0].split(", ")}
    assert orders == set(ScanOrder.__args__)
    assert set(re.findall(r"^- `(\w+)`(?: \(the paper's\))?:", TEXT, re.MULTILINE)) >= set(MaskingName.__args__)


def test_fields_that_must_agree():
    (sentence,) = re.findall(r"The fields (.*?) of checkpoint and\s+model must agree", TEXT, re.DOTALL)
    assert set(re.findall(r"`(\w+)`", sentence)) == set(ENCODER_FIELDS)


def test_loading_an_autoencoder_into_a_classifier():
    source = create_model("mae_3d_vim_tiny_patch8", **SMALL)
    target = create_model("vim_3d_tiny_patch8", **{**SMALL, "contrast_dropout": 0.1})
    state = source.state_dict() | {"cls_token": torch.zeros(1), "rope.x": torch.zeros(1)}
    adapted = target.adapt_state_dict(state)
    assert set(target.state_dict()) - set(adapted.state) == {"head.weight", "head.bias", "patch_embed.missing_contrast"}
    assert all(re.match(r"decoder_|mask_token|cls_token|rope", key) for key in adapted.ignored)
