"""timm's and PyTorch's conventions: for every registered name on the meta device, and with values for one name of each
kind and family."""

import itertools

import pytest
import timm
import torch
from timm.models import group_parameters

from models import create_model, list_models
from tests.helpers.kinds import CLASSIFIERS, ONE_EACH, small

GRID = (2, 3, 4)


def output(model, volume):
    """The first output of a model: loss or logits."""
    return model(volume).loss if hasattr(model, "decoder_blocks") else model(volume)


@pytest.mark.parametrize("name", list_models())
def test_attributes_and_heads(name):
    """By timm.create_model, at the size and width of the name, reduced to one block."""
    layers = (0,) if "mha" in name else ()
    is_classifier, patch = not name.startswith(("mae", "ar")), int(name.split("patch")[1])
    with torch.device("meta"):
        model = timm.create_model(name, depth=1, decoder_depth=1, attention_layers=layers, num_classes=5, drop_rate=0.1)
    cfg, state = model.pretrained_cfg, model.state_dict()
    assert model.default_cfg is cfg
    assert (cfg["architecture"], cfg["input_size"], cfg["num_classes"]) == (name, (4, 160, 160, 160), 2 * is_classifier)
    assert (cfg["classifier"], cfg["fixed_input_size"]) == ("head" if is_classifier else None, True)
    assert cfg["first_conv"] + ".weight" in state
    assert model.patch_embed.grid_size == cfg["pool_size"] == (160 // patch,) * 3
    assert model.patch_embed.num_patches == (160 // patch) ** 3 == model.pos_embed.shape[1]
    width = state["norm_f.weight"].shape[0]
    assert {model.embed_dim, model.num_features, model.head_hidden_size} == {width}
    assert (model.in_chans, model.num_prefix_tokens, model.num_classes) == (4, 0, 5 * is_classifier)
    assert [info["num_chs"] for info in model.feature_info] == [width]
    assert {info["reduction"] for info in model.feature_info} == {patch}
    assert {info["module"] for info in model.feature_info} <= {path for path, _ in model.named_modules()}
    names = {key for key, _ in model.named_parameters()}
    undecayed = model.no_weight_decay() & names
    assert {key for key in names if key.endswith(("A_log", "A_b_log", ".D", ".D_b"))} <= undecayed
    layers = group_parameters(model, model.group_matcher())
    assert sorted(itertools.chain(*layers.values())) == sorted(names)  # every parameter is in exactly one layer
    assert ["pos_embed" in layers[0], "patch_embed.proj.weight" in layers[0]] == ["pos_embed" in names, True]
    assert {key for key in names if key.startswith(("blocks.0.", "norm_f"))} == set(layers[1])
    if is_classifier:
        head = model.get_classifier()
        assert (head.weight.shape, model.head_drop.p, model.global_pool) == ((5, width), 0.1, "avg")
        model.reset_classifier(0)
        assert (model.num_classes, list(model.get_classifier().parameters())) == (0, [])
        model.reset_classifier(7)
        assert model.get_classifier().weight.device.type == "meta"


def test_shapes_on_the_meta_device():
    with torch.device("meta"):
        model, volume = create_model("vim_3d_small_patch16", img_size=64, depth=1), torch.empty(2, 4, 64, 64, 64)
        assert model(volume).shape == (2, 2)
        maps = model.forward_intermediates(volume, output_fmt="NCDHW", intermediates_only=True)
    assert maps[0].shape == (2, 384, 4, 4, 4)


@pytest.mark.parametrize("create", [create_model, timm.create_model])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_classes_gives_pooled_features(name, create, volume):
    model = small(name, create, num_classes=0).eval()
    tokens = model.forward_features(volume)
    assert model.num_classes == 0
    torch.testing.assert_close(model(volume), tokens.mean(1))
    assert torch.equal(model(volume), model.forward_head(tokens, pre_logits=True))
    classifying = small(name, create, num_classes=3).eval()
    classifying.load_state_dict(model.state_dict(), strict=False)
    pooled = classifying.forward_head(tokens, pre_logits=True)
    assert torch.equal(classifying(volume), classifying.get_classifier()(pooled))
    classifying.reset_classifier(0)
    assert torch.equal(classifying(volume), pooled)
    classifying.reset_classifier(0, "")
    assert torch.equal(classifying(volume), tokens)
    classifying.reset_classifier(4, "avg")
    assert classifying(volume).shape == (2, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_new_head_keeps_precision_and_mode(dtype):
    model = small("vim_3d_small_patch8").to(dtype).eval()
    model.reset_classifier(9)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert not model.head.training
    assert model.head.weight.detach().float().std() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("global_pool", "expected"),
    [
        ("avg", lambda tokens: tokens.mean(1)),
        ("max", lambda tokens: tokens.amax(1)),
        ("avgmax", lambda tokens: (tokens.mean(1) + tokens.amax(1)) / 2),
        ("last", lambda tokens: tokens[:, -1]),
        ("", lambda tokens: tokens),
    ],
)
def test_global_pool(global_pool, expected, volume):
    model = small("vim_3d_small_patch8", global_pool=global_pool, num_classes=3).eval()
    tokens = model.forward_features(volume)
    assert model.global_pool == global_pool
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), expected(tokens))
    torch.testing.assert_close(model(volume), model.head(expected(tokens)))


def test_unknown_pools_and_rates_are_named():
    with pytest.raises(ValueError, match='pool="token" is not one of mean, last, max, avgmax, none'):
        small("vim_3d_small_patch8", global_pool="token")
    with pytest.raises(ValueError, match='pool="map"'):
        small("vim_3d_small_patch8").reset_classifier(2, "map")
    with pytest.raises(ValueError, match=r"drop_rate=1.5 must lie in \[0, 1\)"):
        small("vim_3d_small_patch8", drop_rate=1.5)
    with pytest.raises(ValueError, match="num_classes 0"):
        small("vim_3d_small_patch8", num_classes=-1)


def test_drop_rate_acts_on_the_input_of_the_head(volume):
    model = small("vim_3d_small_patch8", drop_rate=0.5)
    tokens = model.forward_features(volume)
    kept = model.forward_head(tokens, pre_logits=True) / tokens.mean(1)
    assert {round(ratio, 3) for ratio in kept.flatten().tolist()} == {0.0, 2.0}
    model.eval()
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens.mean(1))


@pytest.mark.parametrize("create", [create_model, timm.create_model])
@pytest.mark.parametrize("name", ONE_EACH)
def test_features_only(name, create, volume):
    whole = small(name, create).eval()
    features = small(name, create, features_only=True, out_indices=(0,)).eval()
    assert (features.feature_info.channels(), features.feature_info.reduction()) == ([48], [8])
    kept = set(features.model.state_dict())
    assert not {key for key in kept if key.startswith(("blocks.1", "norm_f", "head", "decoder", "mask_token"))}
    assert not {"num_classes", "classifier"} & features.pretrained_cfg.keys()
    features.model.load_state_dict({key: value for key, value in whole.state_dict().items() if key in kept})
    expected = whole.forward_intermediates(volume, [0], output_fmt="NCDHW", intermediates_only=True)
    (maps,) = features(volume)
    assert maps.shape == (2, 48, *GRID)
    assert torch.equal(maps, expected[0])


@pytest.mark.parametrize("scan_order", ["raster", "hilbert"])
@pytest.mark.parametrize("name", ONE_EACH)
def test_another_input_size(name, scan_order, volume):
    model = small(name, scan_order=scan_order)
    source = small(name, scan_order=scan_order)
    source.load_state_dict(model.state_dict())
    model.set_input_size((32, 16, 24))
    assert (model.grid, model.patch_embed.grid_size, model.patch_embed.num_patches) == ((4, 2, 3), (4, 2, 3), 24)
    fresh = small(name, scan_order=scan_order, img_size=(32, 16, 24))
    fresh.load_state_dict(fresh.adapt_state_dict(source.state_dict(), source.grid).state)
    moved, noise = volume.permute(0, 1, 4, 2, 3), {} if not name.startswith("mae") else {"noise": torch.rand(2, 24)}
    for a, b in zip(model.eval()(moved, **noise), fresh.eval()(moved, **noise), strict=True):
        assert torch.equal(a, b)  # as if a checkpoint were loaded at that size
    with pytest.raises(ValueError, match="model expects"):
        model(volume)
    with pytest.raises(ValueError, match="img_size Z=20 is not divisible by patch_size=8"):
        model.set_input_size(20)


def test_resampled_positions_stay_learned_or_fixed():
    model = small("vim_3d_small_patch8").bfloat16()
    model.pos_embed.requires_grad_(False)
    model.set_input_size(32)
    assert (model.pos_embed.dtype, model.pos_embed.requires_grad) == (torch.bfloat16, False)
    assert "pos_embed" in dict(model.named_parameters())
    mae = small("mae_3d_vim_small_patch8", fidelity="paper")
    mae.set_input_size(32)
    assert (mae.pos_embed.shape, mae.decoder_pos_embed.shape) == ((1, 64, 48), (1, 65, 24))
    assert mae.decoder_pos_embed[0, 0].abs().sum() == 0  # the slot is not resampled
    assert "pos_embed" in dict(mae.named_buffers())


@pytest.mark.parametrize("in_chans", range(1, 9))
def test_any_number_of_contrasts(in_chans, volume):
    volume = torch.randn(1, in_chans, 8, 16, 16)
    for name in ("vim_3d_small_patch8", "mae_3d_vim_small_patch8"):
        model = small(name, timm.create_model, in_chans=in_chans, img_size=(8, 16, 16))
        output(model, volume).sum().backward()
        assert model.patch_embed.proj.weight.grad.isfinite().all()
        assert model.patch_embed.proj.weight.shape[1] == in_chans == model.in_chans


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("name", ONE_EACH)
def test_jit_and_fx_are_refused(name, volume):
    model = small(name).eval()
    for record in (lambda: torch.jit.trace(model, volume), lambda: torch.jit.script(model),
                   lambda: torch.fx.symbolic_trace(model)):  # fmt: skip
        with pytest.raises(ValueError, match=r"torch\.export\.export"):
            record()


# Precision: (factor of the loss, tolerance). Small gradients underflow in float16 without a factor.
PRECISIONS = {torch.float16: (1024.0, 0.01), torch.bfloat16: (1.0, 0.05)}


def passes(model, volume, noise, factor):
    """Loss or logits of a model, and the gradients of all its parameters."""
    out = model(volume, noise=noise) if hasattr(model, "mask_token") else model(volume)
    out = out if torch.is_tensor(out) else out.loss
    (out.flatten()[-1] * factor).backward()
    assert all(p.grad.dtype == p.dtype for p in model.parameters())
    return out.detach(), {name: p.grad.double() / factor for name, p in model.named_parameters()}


SCANS = [("vim_3d_small_patch8", backend) for backend in ("chunked", "reference")]
SCANS += [("vim2_3d_small_patch8", backend) for backend in ("chunked", "reference")]


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(
    ("name", "fields"),
    [(name, {}) for name in ONE_EACH]
    + [(name, {"scan_backend": backend}) for name, backend in SCANS]
    + [(name, {"grad_checkpointing": True}) for name in ("vim_3d_small_patch8", "vim_mha_3d_small_patch8")],
)
def test_whole_models_in_another_precision(name, fields, dtype, volume):
    """model.half() and the like, with every part converted, against float32 with the same weights and volume."""
    model, single = small(name, **fields).to(dtype), small(name, **fields)
    single.load_state_dict(model.state_dict())
    volume, noise, (factor, tolerance) = volume.to(dtype), torch.rand(2, 24), PRECISIONS[dtype]
    actual, gradients = passes(model, volume, noise, factor)
    expected, right = passes(single, volume.float(), noise, factor)
    torch.testing.assert_close(actual.float(), expected, rtol=tolerance, atol=tolerance)
    largest = max(gradient.norm() for gradient in right.values())
    for key, gradient in right.items():
        assert (gradients[key] - gradient).norm() <= tolerance * gradient.norm() + 1e-5 * largest, key


def loss_of(model, parameters, volume, noise):
    """The model's loss with these parameters, or the sum of its squared logits."""
    options = {"noise": noise} if hasattr(model, "mask_token") else {}
    out = torch.func.functional_call(model, parameters, (volume,), options)
    return out.square().sum() if torch.is_tensor(out) else out.loss


@pytest.mark.parametrize("name", ONE_EACH)
def test_gradients_of_each_sample_by_torch_func(name, volume):
    model = small(name, scan_backend="reference").eval()
    parameters, noise = {key: p.detach() for key, p in model.named_parameters()}, torch.rand(2, 24)

    def loss(parameters, volume, noise):
        return loss_of(model, parameters, volume[None], noise[None])

    actual = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, volume, noise)
    for sample in range(2):
        model.zero_grad()
        loss_of(model, {}, volume[[sample]], noise[[sample]]).backward()
        for key, p in model.named_parameters():
            torch.testing.assert_close(actual[key][sample], p.grad, rtol=1e-3, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", ONE_EACH)
def test_second_derivatives_by_the_reference_backend(name, volume):
    """The change of the gradient along a direction against the difference of two gradients, in double precision."""
    model = small(name, scan_backend="reference", depth=1 + ("mha" in name), decoder_depth=1).double().eval()
    volume, noise = volume.double(), torch.rand(2, 24)
    parameters = dict(model.named_parameters())
    direction = {key: torch.randn_like(p) * p.detach().abs().mean() for key, p in parameters.items()}

    def gradients(step, **options):
        moved = {key: p + step * direction[key] for key, p in parameters.items()}
        return torch.autograd.grad(loss_of(model, moved, volume, noise), list(parameters.values()), **options)

    along = sum((g * d).sum() for g, d in zip(gradients(0.0, create_graph=True), direction.values()))
    second = torch.autograd.grad(along, list(parameters.values()))
    for key, exact, up, down in zip(parameters, second, gradients(1e-5), gradients(-1e-5)):
        torch.testing.assert_close(
            (up - down) / 2e-5, exact, rtol=1e-3, atol=1e-5 * float(exact.norm()) + 1e-7, msg=key
        )
