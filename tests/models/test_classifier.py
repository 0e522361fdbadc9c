import pytest
import torch

from models import create_model
from tests.conftest import SMALL

NAMES = ("vim_3d_small_patch8", "vit_3d_small_patch8")


@pytest.mark.parametrize("name", NAMES)
def test_timms_contract(name, volume):
    model = create_model(name, **SMALL, num_classes=3).eval()
    tokens = model.forward_features(volume)
    assert tokens.shape == (2, 24, 48)
    pooled = model.forward_head(tokens, pre_logits=True)
    torch.testing.assert_close(pooled, tokens.mean(1))
    torch.testing.assert_close(model(volume), model.get_classifier()(pooled))
    final, states = model.forward_intermediates(volume, indices=[0, -1], norm=True)
    torch.testing.assert_close(states[1], final)
    assert model.forward_intermediates(volume, indices=1, intermediates_only=True)[0].shape == (2, 24, 48)
    model.reset_classifier(5)
    assert model(volume).shape == (2, 5)
    with pytest.raises(ValueError, match=r"blocks 0\.\.1"):
        model.forward_intermediates(volume, indices=[2])


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_missing(name, volume):
    model = create_model(name, **SMALL)
    torch.nn.functional.cross_entropy(model(volume), torch.tensor([0, 1])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_position_matters(volume):
    model = create_model(NAMES[0], **SMALL).eval()
    assert (model(volume) - model(volume.flip(-1))).abs().max() > 1e-4


def test_the_head_reads_the_configured_pool(volume):
    model = create_model(NAMES[0], **SMALL, pool="last").eval()
    tokens = model.forward_features(volume)
    torch.testing.assert_close(model.forward_head(tokens, pre_logits=True), tokens[:, -1])
    torch.testing.assert_close(model(volume), model.head(tokens[:, -1]))
