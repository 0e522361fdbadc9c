import pytest
import torch
from timm.optim import param_groups_layer_decay

from models import create_model
from models.tokens.scan_orders import scan_places
from tests.conftest import SMALL


@pytest.mark.parametrize("family", ["vim", "bivim2"])
def test_scan_parameters_are_not_decayed(family):
    model = create_model(f"mae_3d_{family}_small_patch8", **SMALL)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, tuple(model.no_weight_decay()), layer_decay=1.0)
    decayed = {names[id(p)] for group in groups if group["weight_decay"] for p in group["params"]}
    for part in ("A_log", "A_b_log", ".D", ".D_b", "dt_bias", "dt_bias_b", "mask_token", "bias", "norm"):
        assert not [name for name in decayed if name.endswith(part) or (part == "norm" and "norm" in name)], part
    assert any(name.endswith("in_proj.weight") for name in decayed)


def test_scan_parameters_are_named_as_undecayed():
    """For optimisers that use only the names, not the number of dimensions."""
    model = create_model("vim_3d_small_patch8", **{**SMALL, "depth": 1}, mixer="mamba2")
    mixer = "blocks.0.mixer."
    assert model.no_weight_decay() - {"pos_embed", "mask_token", "patch_embed.missing_contrast"} == {
        mixer + name for name in ("A_log", "A_b_log", "D", "D_b", "dt_bias", "dt_bias_b")
    }


def test_layer_groups_deepen_from_embedding_to_head():
    model = create_model("vim_3d_small_patch8", **SMALL)
    names = {id(p): n for n, p in model.named_parameters()}
    groups = param_groups_layer_decay(model, 0.05, tuple(model.no_weight_decay()), layer_decay=0.5)
    scale = {names[id(p)]: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale["head.weight"] == 1.0
    assert scale["pos_embed"] == scale["patch_embed.proj.weight"] < scale["blocks.0.mixer.A_log"]
    assert scale["blocks.0.mixer.A_log"] == scale["blocks.0.norm.weight"] < scale["blocks.1.mixer.D_b"] < 1.0


ORDERS = ("zxy", "xyz", "snake", "hilbert", "shuffle")


def mae(mixer, order, **fields):
    torch.manual_seed(1)
    return create_model("mae_3d_vim_small_patch8", **SMALL, mixer=mixer, scan_order=order, **fields).eval()


def outputs(model, volume):
    noise = torch.rand(2, 24, generator=torch.Generator().manual_seed(2))
    out = model(volume, noise=noise)
    raster = out.ids_keep.argsort(dim=1)  # only shuffle returns the visible tokens in another order
    latent = out.latent.gather(1, raster.unsqueeze(-1).expand_as(out.latent))
    tokens, states = model.forward_intermediates(volume)
    return {"pred": out.pred, "removed": out.removed, "latent": latent, "tokens": tokens, "first": states[0],
            "loss": out.loss, "ids_keep": out.ids_keep.sort(dim=1).values}  # fmt: skip


@pytest.mark.parametrize("order", ORDERS)
def test_a_mixer_that_does_not_read_order_gives_the_same_in_any_order(order, volume):
    """Positions and rotations are reordered with their tokens, and every output is in raster order."""
    plain, ordered = (outputs(mae("attention", name), volume) for name in ("raster", order))
    for name, expected in plain.items():
        torch.testing.assert_close(ordered[name], expected, msg=name)


@pytest.mark.parametrize("order", ORDERS)
def test_mamba_reads_the_order(order, volume):
    plain, ordered = (outputs(mae("mamba", name), volume) for name in ("raster", order))
    assert (ordered["latent"] - plain["latent"]).abs().max() > 1e-3
    assert torch.equal(ordered["removed"], plain["removed"])
    differs = (ordered["tokens"] - plain["tokens"]).abs().max() > 1e-3
    assert differs == (order != "shuffle")  # shuffle changes only the order of visible tokens


@pytest.mark.parametrize("order", ["yxz", "hilbert"])
def test_a_scan_in_another_order_is_the_plain_scan_of_reordered_tokens(order):
    plain, ordered = mae("mamba", "raster"), mae("mamba", order)
    tokens, places = torch.randn(2, 24, 48), scan_places(order, (2, 3, 4))
    rotation = torch.polar(torch.ones(1, 24, 24), torch.rand(1, 24, 24))
    actual = ordered.scan(ordered.blocks, ordered.norm_f, tokens, rotation)
    expected = plain.blocks(tokens[:, places], plain.norm_f, rotation[:, places])
    torch.testing.assert_close(actual[:, places], expected)
    ids = torch.tensor([[3, 7, 8, 20, 21], [0, 1, 2, 22, 23]])
    kept = ordered.scan(ordered.blocks, ordered.norm_f, tokens[:, :5], None, ids_BT=ids)
    for b in range(2):
        by_scan = sorted(range(5), key=lambda i: places.tolist().index(int(ids[b, i])))
        expected = plain.blocks(tokens[b : b + 1, by_scan], plain.norm_f)
        torch.testing.assert_close(kept[b : b + 1, by_scan], expected)


def test_scan_orders_are_not_in_checkpoints_and_follow_the_model_to_another_device():
    raster, hilbert = mae("mamba", "raster"), mae("mamba", "hilbert")
    assert raster.state_dict().keys() == hilbert.state_dict().keys()
    assert hilbert.to("meta").scan_places.device.type == "meta"


@pytest.mark.parametrize(
    ("shape", "fix"),
    [
        ((1, 3, 16, 16, 24), r"create the model with img_size=\(16, 16, 24\) and in_chans=3"),
        ((4, 16, 16, 16), r"add a batch axis, volume\.unsqueeze\(0\)"),
        ((16, 16, 16), r"give \(batch, contrasts, Z, Y, X\)"),
    ],
)
def test_the_error_for_another_shape_names_the_fix(shape, fix):
    model = create_model("vim_3d_tiny_patch8", img_size=16, embed_dim=24, depth=1)
    with pytest.raises(ValueError, match=rf"the model expects \(batch, \*\(4, 16, 16, 16\)\): {fix}"):
        model(torch.zeros(shape))
