"""Looking into a model without changing it."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from models import PatchPredictor, VolumeClassifier
from models.encoder import VolumeEncoder
from util.calibration import Decision
from util.tta import averaged, views_of
from vis.evaluating import evaluating
from vis.maps import latent_map


def block_number(model: VolumeEncoder, block: int) -> int:
    """A block counted from 0, given from 0 or, negative, from the end. ValueError for one that does not exist."""
    depth = model.config.depth
    if not -depth <= block < depth:
        raise ValueError(f"--block {block} does not exist: the model has blocks 0 to {depth - 1}, -1 is the last")
    return block % depth


def latent_maps(
    model: PatchPredictor | VolumeClassifier, volume_BCZYX: Tensor, names: Iterable[str], block: int = -1
) -> dict[str, Tensor]:
    """Maps (B, z, y, x) of an unmasked volume's tokens after a block, the last unless given; one forward pass for all.

    ValueError for a name or block that does not exist.
    """
    maps = {name: latent_map(name) for name in names}
    with evaluating(model):
        number = block_number(model, block)
        state_BLE = model.forward_intermediates(volume_BCZYX, [number], intermediates_only=True)[0]
        assert isinstance(state_BLE, Tensor)
        normed_BLE = model.norm_f(state_BLE)
        return {
            name: found(state_BLE if found.before_norm else normed_BLE, model.grid).float()
            for name, found in maps.items()
        }


def probabilities(
    model: VolumeClassifier,
    volume_BCZYX: Tensor,
    decision: Decision = Decision(),  # noqa: B008  (frozen)
) -> Tensor:
    """(B, C, Z, Y, X) -> (B, num_classes), summing to 1, of the views and with the temperature that `decision` says."""
    with evaluating(model):
        return decided([model(view) for view in views_of(volume_BCZYX, decision.tta)], decision)


def decided(logits: Sequence[Tensor], decision: Decision) -> Tensor:
    """Logits (B, num_classes) of every view -> (B, num_classes) probabilities."""
    return (averaged(logits) / decision.temperature).softmax(dim=-1)
