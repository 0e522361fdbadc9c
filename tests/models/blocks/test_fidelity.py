"""`paper` agrees with fixtures of the published code; `corrected` keeps tokens, positions and patches aligned."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

import models.blocks.mixers
import models.blocks.trunk
import models.mae
from models import create_model
from models.blocks.fidelity import PARTS, put_back, put_back_shifted
from models.tokens.masking import make_mask
from ops import add_norm_fn, bimamba_fn
from tests.conftest import FIXTURES

MAE_SIZE = {
    "img_size": 32,
    "embed_dim": 48,
    "depth": 3,
    "decoder_embed_dim": 24,
    "decoder_depth": 2,
    "drop_path_rate": 0.0,
}
VIM_SIZE = {"img_size": 32, "embed_dim": 48, "depth": 3, "drop_path_rate": 0.0}
CORRECTED = PARTS["corrected"]
BACKENDS = ("reference", "chunked", "auto")


def load(name):
    return torch.load(FIXTURES / name, weights_only=True)


def relative(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def published_mae(fixture, **fields):
    mae = create_model("mae_3d_vim_small_patch8", **{**MAE_SIZE, "fidelity": "paper", "norm_pix_loss": True, **fields})
    mae.load_state_dict(mae.adapt_state_dict(fixture["state_dict"]).state)
    return mae


def assert_published_autoencoder(backend):
    """Outputs differ by at most 1e-4 (absolute), gradients by at most 1e-3 (relative)."""
    fixture = load("paper_mae_a.pt")
    mae = published_mae(fixture, scan_backend=backend)
    out = mae(fixture["input"].float(), fixture["mask_ratio"], fixture["noise"])
    for name, actual in (("latent", out.latent), ("pred", out.pred), ("loss", out.loss), ("mask", out.removed)):
        torch.testing.assert_close(actual, fixture[name], atol=1e-4, rtol=0, msg=name)
    out.loss.backward()
    gradients = {name: parameter.grad for name, parameter in mae.named_parameters()}
    assert gradients.keys() == fixture["grads"].keys()
    for name, expected in fixture["grads"].items():
        assert relative(gradients[name], expected) < 1e-3, name


def assert_published_classifier(backend):
    fixture = load("paper_vim_a.pt")
    classifier = create_model("vim_3d_small_patch8", **VIM_SIZE, fidelity="paper", scan_backend=backend)
    classifier.load_state_dict(classifier.adapt_state_dict(fixture["state_dict"]).state)
    tokens, (last,) = classifier.forward_intermediates(fixture["input"].float(), indices=1)
    logits = classifier.forward_head(tokens)
    close = {"atol": 1e-4, "rtol": 0}
    torch.testing.assert_close(classifier.forward_head(tokens, pre_logits=True), fixture["features"], **close)
    torch.testing.assert_close(logits, fixture["logits"], **close)
    torch.testing.assert_close(last, fixture["last_block_hidden"] + fixture["last_block_residual"], **close)
    F.cross_entropy(logits, fixture["target"]).backward()
    for name, parameter in classifier.named_parameters():
        assert relative(parameter.grad, fixture["grads"][name]) < 1e-3, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_published_autoencoder(backend):
    assert_published_autoencoder(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_published_classifier(backend):
    assert_published_classifier(backend)


def test_constant_embeddings_of_the_paper_are_reproduced():
    fixture = load("paper_mae_a.pt")["state_dict"]
    mae = create_model("mae_3d_vim_small_patch8", **MAE_SIZE, fidelity="paper")
    torch.testing.assert_close(mae.pos_embed, fixture["pos_embed"], atol=1e-6, rtol=0)
    torch.testing.assert_close(mae.decoder_pos_embed, fixture["decoder_pos_embed"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "fault",
    [{"order": "raster"},
     {"arrange": CORRECTED.arrange, "extra_slots": 0, "decoder_rotation": CORRECTED.decoder_rotation},
     {"encoder_rotation": CORRECTED.encoder_rotation}, {"position_axes": (0, 1, 2)}],
    ids=["sorted tokens", "decoder layout", "rotary", "position axes"],
)  # fmt: skip
def test_the_fixture_notices_a_planted_fault(fault):
    fixture = load("paper_mae_a.pt")
    mae = published_mae(fixture)
    mae.order = fault.get("order", mae.order)
    mae.parts = replace(mae.parts, **{name: part for name, part in fault.items() if name != "order"})
    if "extra_slots" in fault:
        mae.decoder_pos_embed = mae.decoder_pos_embed[:, 1:]
    if "position_axes" in fault:
        mae.pos_embed = create_model("mae_3d_vim_small_patch8", **MAE_SIZE).pos_embed
    pred = mae(fixture["input"].float(), fixture["mask_ratio"], fixture["noise"]).pred
    assert (pred - fixture["pred"]).abs().max() > 1e-3


def swapped_directions(monkeypatch):
    def swapped(xz, forward, backward, *rest, **options):
        return bimamba_fn(xz, backward, forward, *rest, **options)

    monkeypatch.setattr(models.blocks.mixers, "bimamba_fn", swapped)


def undivided_directions(monkeypatch):
    monkeypatch.setattr(models.blocks.mixers, "bimamba_fn", lambda *args, **options: 2 * bimamba_fn(*args, **options))


def forgotten_rotary(monkeypatch):
    def without_rotation(hidden, residual, rotation, *rest, **options):
        return add_norm_fn(hidden, residual, None, *rest, **options)

    monkeypatch.setattr(models.blocks.trunk, "add_norm_fn", without_rotation)


def other_token_order(monkeypatch):
    """`corrected` gets kept tokens in the order of their noise, `paper` in raster order."""

    def other(*args, shuffle):
        return make_mask(*args, shuffle=not shuffle)

    monkeypatch.setattr(models.mae, "make_mask", other)


def shifted_decoder(monkeypatch):
    """Every decoder slot holds the token of the position before it."""
    for fidelity, parts in PARTS.items():

        def arrange_shifted(visible, mask_token, mask, arrange=parts.arrange):
            return arrange(visible, mask_token, mask).roll(1, dims=1)

        monkeypatch.setitem(PARTS, fidelity, replace(parts, arrange=arrange_shifted))


MIXER_PLANTS = (swapped_directions, undivided_directions, forgotten_rotary)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plant", [*MIXER_PLANTS, other_token_order, shifted_decoder])
def test_the_autoencoders_fixture_notices(monkeypatch, plant, backend):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_published_autoencoder(backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("plant", MIXER_PLANTS)
def test_the_classifiers_fixture_notices(monkeypatch, plant, backend):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_published_classifier(backend)


def assert_corrected_properties():
    """Properties of `corrected` that no published weights can check. Its reconstruction depends on which tokens are
    visible, not on the order of their noise; a visible token's content stands at its own place of the decoder, so that
    another content there, with mixers that do nothing, changes the prediction of that place and of no other."""
    mae = create_model("mae_3d_vim_small_patch8", **MAE_SIZE).eval()
    volume, noise = torch.randn(1, 4, 32, 32, 32), torch.rand(1, mae.config.tokens)
    out = mae(volume, 0.75, noise)
    reordered = torch.where(out.removed > 0, noise, noise.min() * torch.rand_like(noise))
    torch.testing.assert_close(mae(volume, 0.75, reordered).pred, out.pred)

    for block in [*mae.blocks, *mae.decoder_blocks]:
        torch.nn.init.zeros_(block.mixer.out_proj.weight)
    place = int(out.ids_keep[0, 3])
    patches = mae.patchify(volume)
    patches[0, place] = torch.randn_like(patches[0, place])
    before, after = (mae(v, 0.75, noise).pred[0] for v in (volume, mae.unpatchify(patches)))
    changed = ((after - before).abs().amax(-1) > 1e-5).nonzero().flatten()
    assert changed.tolist() == [place]


def test_corrected_keeps_everything_aligned():
    assert_corrected_properties()


@pytest.mark.parametrize("plant", [other_token_order, shifted_decoder])
def test_the_properties_notice(monkeypatch, plant):
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        assert_corrected_properties()


def test_visible_tokens_return_to_their_own_positions():
    noise = torch.rand(2, 10)
    mask = make_mask("random", noise, 0.6, (1, 2, 5))
    tokens = torch.arange(10.0).view(1, 10, 1).expand(2, -1, 3) + 1
    visible = torch.stack([tokens[b, mask.ids_keep[b]] for b in range(2)])
    placed = put_back(visible, torch.zeros(1, 1, 3), mask)
    torch.testing.assert_close(placed, tokens * (1 - mask.removed()).unsqueeze(-1))


def test_the_published_layout_shifts_by_one():
    mask = make_mask("random", torch.tensor([[0.3, 0.9, 0.1, 0.8]]), 0.5, (1, 1, 4), shuffle=True)  # keeps 2, then 0
    placed = put_back_shifted(torch.tensor([[[10.0], [20.0]]]), torch.zeros(1, 1, 1), mask)
    assert placed.flatten().tolist() == [
        10.0,
        0.0,
        0.0,
        20.0,
        0.0,
    ]  # the second visible token, of position 0, has position 2


def test_paper_scans_in_its_own_order_only():
    assert create_model("mae_3d_vim_small_patch8", **MAE_SIZE, fidelity="paper").shuffles
    assert not create_model("mae_3d_vim_small_patch8", **MAE_SIZE).shuffles
    with pytest.raises(ValueError, match=r'scan_order="hilbert" does not go with fidelity="paper".*shuffle'):
        create_model("mae_3d_vim_small_patch8", **MAE_SIZE, fidelity="paper", scan_order="hilbert")
