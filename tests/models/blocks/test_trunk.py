import pytest
import torch
from torch import nn

from models import create_model
from models.blocks.trunk import Block, Trunk
from ops.reference.add_norm import rotate
from tests.conftest import SMALL


class Double(nn.Module):
    def forward(self, tokens):
        return 2 * tokens


def test_block_adds_then_rotates_then_norms_then_mixes():
    block = Block(4, Double(), drop_path=0.0)
    hidden, residual = torch.randn(1, 3, 4), torch.randn(1, 3, 4)
    rotation = torch.polar(torch.ones(1, 3, 2), torch.rand(1, 3, 2))
    new_hidden, new_residual = block(hidden, residual, rotation)
    torch.testing.assert_close(new_residual, rotate(hidden, rotation) + rotate(residual, rotation))
    torch.testing.assert_close(
        new_hidden, 2 * new_residual / (new_residual.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    )


def test_residual_stays_float32_under_bf16():
    block = Block(4, Double(), drop_path=0.0)
    with torch.autocast("cpu", torch.bfloat16):
        _, residual = block(torch.randn(1, 3, 4).bfloat16(), torch.randn(1, 3, 4), None)
    assert residual.dtype == torch.float32


def test_drop_path_rates_start_with_two_zeros_and_end_with_the_full_rate():
    model = create_model("vim_3d_small_patch8", **{**SMALL, "depth": 4, "drop_path_rate": 0.3})
    rates = [block.drop_path.drop_prob for block in model.blocks]
    assert rates == pytest.approx([0.0, 0.0, 0.1, 0.2])
    assert model.blocks.final_drop_path == 0.3


def test_drop_path_removes_the_incoming_hidden_in_training_only():
    trunk = Trunk([Block(4, Double(), 0.0)], final_drop_path=0.999999, grad_checkpointing=False)
    tokens = torch.randn(2, 3, 4)
    trunk.train()
    torch.testing.assert_close(trunk(tokens, nn.Identity()), tokens)
    trunk.eval()
    assert (trunk(tokens, nn.Identity()) - tokens).abs().max() > 0.1


HYBRID = {"attention_layers": (1,)}
FAMILIES = [("vim", {}), ("vit", {}), ("vim2", {}), ("bivim2", {}), ("vim_mha", HYBRID), ("bivim_mha", HYBRID)]


@pytest.mark.parametrize(("family", "fields"), FAMILIES, ids=lambda x: x if isinstance(x, str) else "")
def test_activation_checkpointing_changes_memory_not_gradients(family, fields, volume):
    model = create_model(f"mae_3d_{family}_small_patch8", **{**SMALL, "drop_path_rate": 0.2, **fields})
    noise, gradients = torch.rand(2, 24), []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        assert model.decoder_blocks.grad_checkpointing == enabled
        model.zero_grad()
        torch.manual_seed(1)
        model(volume, noise=noise).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)


@pytest.mark.parametrize(("family", "fields"), FAMILIES, ids=lambda x: x if isinstance(x, str) else "")
def test_bf16_autocast_stays_close_and_gives_every_parameter_a_gradient(family, fields, volume):
    model, noise = create_model(f"mae_3d_{family}_small_patch8", **{**SMALL, **fields}), torch.rand(2, 24)
    expected = model(volume, noise=noise).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(volume, noise=noise).loss
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_mixers_follow_the_config_block_by_block():
    def kinds(blocks):
        return [type(block.mixer).__name__ for block in blocks]

    model = create_model("mae_3d_bivim_mha_small_patch8", **{**SMALL, "depth": 4, "attention_layers": (0, 2)})
    assert kinds(model.blocks) == ["ConvAttention", "BiMamba", "ConvAttention", "BiMamba"]
    assert kinds(model.decoder_blocks) == ["BiMamba", "BiMamba"]
    one_way = create_model("vim_3d_small_patch8", **SMALL, mixer="mamba2", directions="forward")
    assert kinds(one_way.blocks) == ["Mamba2", "Mamba2"]
    assert not hasattr(one_way.blocks[0].mixer, "in_proj_b")


@pytest.mark.parametrize("family", ["bivim2", "vim_mha"])
def test_the_backend_reaches_the_new_mixers(family, volume):
    fields = {**SMALL, "attention_layers": (1,) if family == "vim_mha" else ()}
    model = create_model(f"{family}_3d_small_patch8", **fields, scan_backend="cuda")
    with pytest.raises(ValueError, match="takes CUDA tensors"):
        model(volume)
