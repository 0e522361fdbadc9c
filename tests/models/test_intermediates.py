"""Features after any block. tests/models/test_timm_conventions.py tests features_only."""

import pytest
import torch

from tests.helpers.kinds import CLASSIFIERS, ONE_EACH, small

GRID = (2, 3, 4)


@pytest.mark.parametrize("name", ONE_EACH)
def test_intermediates(name, volume):
    model = small(name).eval()
    tokens = model.forward_features(volume)
    final, states = model.forward_intermediates(volume)
    assert torch.equal(final, tokens)
    assert [state.shape for state in states] == [(2, 24, 48)] * 2
    torch.testing.assert_close(model.norm_f(states[-1]), tokens)
    torch.testing.assert_close(model.forward_intermediates(volume, 1, norm=True)[1][0], tokens)
    first, maps = model.forward_intermediates(volume, [0], stop_early=True, output_fmt="NCDHW")
    assert torch.equal(maps[0], states[0].transpose(1, 2).reshape(2, 48, *GRID))
    torch.testing.assert_close(first, model.norm_f(states[0]))  # the second block was not run
    only = model.forward_intermediates(volume, intermediates_only=True, return_prefix_tokens=True)
    assert all(torch.equal(a, b) for a, b in zip(only, states, strict=True))
    named = model.forward_intermediates(volume, [1, 0], output_dict=True)
    assert torch.equal(named["image_features"], tokens)
    assert torch.equal(named["image_intermediates"][1], states[0])
    (layer,) = model.get_intermediate_layers(volume, n=1, reshape=True)
    assert torch.equal(layer, model.as_maps(states[1]))
    model.set_grad_checkpointing()
    torch.testing.assert_close(model.forward_intermediates(volume)[0], tokens)


def test_missing_blocks_and_unknown_formats_are_named(volume):
    model = small("vim_3d_small_patch8")
    for indices, message in ((3, "last 3 blocks"), (0, "last 0 blocks"), ([2], r"blocks 0\.\.1"), ([-3], "block -3")):
        with pytest.raises(ValueError, match=message):
            model.forward_intermediates(volume, indices)
    with pytest.raises(ValueError, match='output_fmt="NHWC" is not one of NLC, NCDHW'):
        model.forward_intermediates(volume, output_fmt="NHWC")


@pytest.mark.parametrize("name", ONE_EACH)
def test_pruning(name, volume):
    model = small(name).eval()
    expected = model.forward_intermediates(volume, [0], intermediates_only=True)[0]
    assert model.prune_intermediate_layers([-2]) == [0]
    assert (len(model.blocks), model.config.depth, len(model.feature_info)) == (1, 1, 1)
    assert torch.equal(model.forward_intermediates(volume, [0], intermediates_only=True)[0], expected)
    if name in CLASSIFIERS:
        torch.testing.assert_close(model(volume), model.norm_f(expected))
    else:
        torch.testing.assert_close(model.encode(volume), model.norm_f(expected))
        with pytest.raises(ValueError, match="removed the decoder"):
            model(volume)
