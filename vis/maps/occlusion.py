"""Class-specific map by experiment: what the class loses when a place of the volume is emptied."""

import sys

import torch
from torch import Tensor
from tqdm import tqdm

from models import VolumeClassifier
from util.training.eval_mode import evaluating
from vis.maps.explained_class import empty_volume, log_odds


def occlusion(
    model: VolumeClassifier, volume_BCZYX: Tensor, target_B: Tensor, *, window: int = 1, batch: int = 8
) -> Tensor:
    """(B, L): the fall of the class's log-odds when the patches of a window are set to background in every contrast.

    window: side in patches; the windows tile the grid, and all patches of one share its value. `batch` volumes are
    computed at a time. A window that holds nothing but background changes nothing, is not computed, and gives 0.

    Nothing is sampled: the error is rounding, about 1e-6 of the log-odds in float32. What the map depends on is the
    choice of window and of replacement. Windows interact, so that the falls need not add up to the rise from the empty
    volume; for a model that is a sum over patches they do, and are exact whatever the window.
    """
    if window < 1:
        raise ValueError(f"--window {window}: give 1 or more patches")
    values = []
    with evaluating(model):
        for volume_CZYX, empty_CZYX, target in zip(volume_BCZYX, empty_volume(volume_BCZYX), target_B, strict=True):
            values.append(_occlude_one(model, volume_CZYX, empty_CZYX, target, window, batch))
    return torch.stack(values)


def window_of_patch(grid: tuple[int, int, int], window: int) -> Tensor:
    """(z, y, x) the number, from 0, of the window that each patch lies in."""
    z, y, x = (torch.arange(side) // window for side in grid)
    return (z[:, None, None] * (int(y[-1]) + 1) + y[:, None]) * (int(x[-1]) + 1) + x


def _occlude_one(
    model: VolumeClassifier, volume_CZYX: Tensor, empty_CZYX: Tensor, target: Tensor, window: int, batch: int
) -> Tensor:
    """(L,) of one volume."""
    patch, windows_zyx = model.config.patch_size, window_of_patch(model.grid, window).to(volume_CZYX.device)
    windows_ZYX = windows_zyx
    for axis in range(3):
        windows_ZYX = windows_ZYX.repeat_interleave(patch, dim=axis)
    tissue_ZYX = (volume_CZYX != empty_CZYX).any(dim=0)
    filled = windows_ZYX[tissue_ZYX].unique()
    falls = volume_CZYX.new_zeros(int(windows_zyx.max()) + 1, dtype=torch.float32)
    whole = log_odds(model(volume_CZYX.unsqueeze(0)).float(), target.expand(1))
    chunks = filled.split(batch)
    for numbers in tqdm(chunks, desc="occlusion", leave=False, disable=not sys.stderr.isatty()):
        emptied = windows_ZYX == numbers.reshape(-1, 1, 1, 1)
        volumes = torch.where(emptied.unsqueeze(1), empty_CZYX, volume_CZYX)
        falls[numbers] = whole - log_odds(model(volumes).float(), target.expand(len(numbers)))
    return falls[windows_zyx].flatten()
