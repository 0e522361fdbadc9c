"""Every kind of map by its name: from a model and a volume to numbers on the token grid."""

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor

from models import PatchPredictor, VolumeClassifier
from util.cli import nearest
from vis.maps.explained_class import targets
from vis.maps.gradients import direction_difference, gradient_activation, integrated_gradients, scan_influence
from vis.maps.latent import MAPS, Grid, latent_map, latent_maps, on_grid
from vis.maps.occlusion import occlusion
from vis.maps.path_integral import Completeness

LOG_ODDS = "log-odds of the class"


@dataclass(frozen=True)
class MapOptions:
    """How maps are computed; each kind reads what concerns it."""

    block: int = -1
    """After which block, from 0; negative counts from the end."""
    target: int | None = None
    """Class that a class-specific map explains; None for each volume's predicted class."""
    steps: int = 16
    """Of integrated gradients, where they need no more to be complete."""
    window: int = 1
    """Side of an occluded window in patches."""
    batch: int = 8
    """Volumes computed at a time."""


@dataclass(frozen=True)
class Method:
    """What a figure and a score must know about a map."""

    title: str
    signed: bool
    """Values around 0, where both ends mean something."""
    unit: str
    scored: Literal["value", "magnitude"]
    """What should be high in a tumour: a magnitude where the sign is arbitrary or either sign matters."""
    class_specific: bool = False


class SpatialMap(NamedTuple):
    """A map on the token grid."""

    values_Bzyx: Tensor
    """float32."""
    completeness: list[Completeness] | None = None
    """Per volume, where the map approximates an integral."""

    def first(self) -> tuple[Tensor, Completeness | None]:
        """(z, y, x) of the first volume, and its completeness."""
        return self.values_Bzyx[0], self.completeness[0] if self.completeness else None


Values = tuple[Tensor, list[Completeness] | None]
Attribute = Callable[[VolumeClassifier, Tensor, Tensor, MapOptions], Values]
"""(model, volume (B, C, Z, Y, X), class (B,), options) -> (B, L), and its completeness."""


def _gradient(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> Values:
    return gradient_activation(model, volume, target, options.block), None


def _influence(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> Values:
    return scan_influence(model, volume, target, options.block), None


def _integrated(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> Values:
    found = integrated_gradients(model, volume, target, steps=options.steps, batch=options.batch)
    return patch_sums(found.parts_BCZYX.sum(dim=1), model.config.patch_size), found.completeness


def _occlusion(model: VolumeClassifier, volume: Tensor, target: Tensor, options: MapOptions) -> Values:
    return occlusion(model, volume, target, window=options.window, batch=options.batch), None


_for_class = partial(Method, signed=True, unit=LOG_ODDS, scored="value", class_specific=True)
CLASS_SPECIFIC: dict[str, tuple[Method, Attribute]] = {
    "gradient": (_for_class("gradient x activation"), _gradient),
    "integrated": (_for_class("integrated gradients"), _integrated),
    "occlusion": (_for_class("fall when occluded"), _occlusion),
    "influence": (_for_class("influence through the scan"), _influence),
}
DIRECTIONS = Method("forward minus backward scan", signed=True, unit="no unit", scored="magnitude")
NAMES = (*MAPS, "directions", *CLASS_SPECIFIC)


def method(name: str) -> Method:
    """What the map of that name shows. ValueError for an unknown name, with the nearest known one."""
    if name in CLASS_SPECIFIC:
        return CLASS_SPECIFIC[name][0]
    if name == "directions":
        return DIRECTIONS
    try:
        found = latent_map(name)
    except ValueError as error:
        known = f"{', '.join(NAMES)}, feature-K"
        raise ValueError(f'there is no map "{name}"{nearest(name, NAMES)} (choose from {known})') from error
    return Method(found.title, found.signed, found.unit, "magnitude" if name == "pca" else "value")


def map_name(text: str) -> str:
    """For argparse: the name of a map, checked."""
    try:
        method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def compute_maps(
    model: PatchPredictor | VolumeClassifier,
    volume_BCZYX: Tensor,
    names: Iterable[str],
    options: MapOptions = MapOptions(),  # noqa: B008  (frozen)
) -> dict[str, SpatialMap]:
    """Maps by name.

    ValueError for an unknown name, and for a class-specific map of a model without classes.
    """
    names = list(names)
    kinds = {name: method(name) for name in names}
    specific = [name for name in names if kinds[name].class_specific]
    latent = [name for name in names if not kinds[name].class_specific and name != "directions"]
    latent_found = latent_maps(model, volume_BCZYX, latent, options.block) if latent else {}
    found = {name: SpatialMap(values) for name, values in latent_found.items()}
    if "directions" in names:
        values_BL = direction_difference(model, volume_BCZYX, options.block)
        found["directions"] = SpatialMap(on_grid(values_BL, model.grid))
    if specific:
        if not isinstance(model, VolumeClassifier):
            raise ValueError(f"--map {specific[0]} explains a class, which only a fine-tuned run has")
        target_B = targets(model, volume_BCZYX, options.target)
        for name in specific:
            values_BL, completeness = CLASS_SPECIFIC[name][1](model, volume_BCZYX, target_B, options)
            found[name] = SpatialMap(on_grid(values_BL, model.grid), completeness)
    return {name: found[name]._replace(values_Bzyx=found[name].values_Bzyx.detach().float()) for name in names}


def patch_sums(volume_BZYX: Tensor, patch_size: int) -> Tensor:
    """(B, Z, Y, X) -> (B, L): what each patch holds in sum, in raster order."""
    grid: Grid = tuple(side // patch_size for side in volume_BZYX.shape[1:])  # pyright: ignore[reportAssignmentType]
    p = patch_size
    return volume_BZYX.reshape(-1, grid[0], p, grid[1], p, grid[2], p).sum(dim=(2, 4, 6)).flatten(1)
