"""The explained score is the log-odds; attribution_mode restores the state of the model."""

import pytest
import torch
from torch import nn

from tests.helpers.vis_cases import SIZE, tiny_classifier
from vis.maps.explained_class import (
    attribution_mode,
    empty_volume,
    log_odds,
    replaced_output,
    target_classes,
    to_raster,
)


def test_log_odds_of_two_classes_and_of_three():
    logits = torch.tensor([[1.0, 3.5], [0.2, -1.0]])
    torch.testing.assert_close(log_odds(logits, torch.tensor([1, 0])), torch.tensor([2.5, 1.2]))
    three, target = torch.randn(4, 3), torch.tensor([0, 1, 2, 1])
    p = three.softmax(1).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(log_odds(three, target), (p / (1 - p)).log(), atol=1e-5, rtol=1e-4)


def test_the_state_of_the_model_is_restored_even_after_an_error():
    model = tiny_classifier(grad_checkpointing=True).train()
    model.head.weight.requires_grad_(False)
    with torch.no_grad(), attribution_mode(model):
        assert torch.is_grad_enabled()
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.blocks.grad_checkpointing
    with pytest.raises(ValueError, match="the model expects"), attribution_mode(model):
        model(torch.zeros(1, 4, 8, 8, 8))
    assert all(module.training for module in model.modules())
    assert model.blocks.grad_checkpointing
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.weight"]


def test_output_is_replaced_inside_only():
    layer = nn.Linear(2, 2)
    x = torch.randn(1, 2)
    plain = layer(x)
    with replaced_output(layer, lambda arguments, output: output + arguments[0]):
        torch.testing.assert_close(layer(x), plain + x)
    torch.testing.assert_close(layer(x), plain)


def test_target_is_the_predicted_class_unless_given():
    model, volume = tiny_classifier(), torch.randn(3, 4, *SIZE)
    with torch.no_grad():
        assert torch.equal(target_classes(model, volume, None), model.eval()(volume).argmax(1))
    assert target_classes(model, volume, 1).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="--target 2: the model has classes 0 to 1"):
        target_classes(model, volume, 2)


def test_empty_volume_is_background_of_each_contrast():
    volume = torch.randn(1, 2, 3, 3, 3)
    empty = empty_volume(volume)
    assert empty.shape == volume.shape
    assert torch.equal(empty[0, :, 2, 1, 0], volume[0, :, 0, 0, 0])


def test_values_return_to_raster_order():
    model, values = nn.Module(), torch.tensor([[10.0, 11, 12]])
    assert torch.equal(to_raster(model, values), values)
    model.scan_places = torch.tensor([2, 0, 1])  # the first token of the scan has raster position 2
    assert to_raster(model, values).tolist() == [[11, 12, 10]]
