import torch
from torch import nn

from util.protocol.tta import FlipAveraged, views_of


class LeftMinusRight(nn.Module):
    """Logits that a mirror image swaps."""

    def forward(self, volume):
        half = volume.shape[-1] // 2
        difference = volume[..., :half].mean((1, 2, 3, 4)) - volume[..., half:].mean((1, 2, 3, 4))
        return torch.stack([difference, -difference], dim=1)


def test_probabilities_are_averaged_over_the_mirror_image():
    volume, model = torch.randn(3, 4, 2, 2, 6), LeftMinusRight()
    seen = FlipAveraged(model)(volume).softmax(-1)
    expected = (model(volume).softmax(-1) + model(volume.flip(-1)).softmax(-1)) / 2
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5))  # this model is odd under the flip
    assert not torch.allclose(model(volume).softmax(-1), seen)


def test_certain_predictions_stay_finite_and_the_mode_is_the_models():
    class Certain(nn.Module):
        def forward(self, volume):
            return torch.tensor([[-1e4, 1e4]]).expand(len(volume), -1)

    inner = Certain().eval()
    seen = FlipAveraged(inner)
    assert not seen.training
    assert torch.isfinite(seen(torch.zeros(2, 4, 2, 2, 2))).all()


def test_views_are_the_volume_and_its_mirror_image():
    volume = torch.arange(6.0).reshape(1, 1, 1, 2, 3)
    assert [view.tolist() for view in views_of(volume, "none")] == [volume.tolist()]
    original, mirrored = views_of(volume, "flip")
    assert torch.equal(original, volume)
    assert mirrored[0, 0, 0].tolist() == [[2, 1, 0], [5, 4, 3]]
