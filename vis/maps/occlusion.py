"""Occlusion: how much the log-odds of the class fall when part of the volume is replaced by background."""

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
    """(B, L): the drop of the class's log-odds when the patches of a window are set to background in every contrast.

    window: side of a window in patches. The windows tile the grid, and all patches of a window have the same value.
    batch: volumes per forward pass. A window of background only has the value 0 and is not computed.

    The computation is deterministic; its only error is rounding, about 1e-6 of the log-odds in float32. The map depends
    on the window and on the replacement value. The drops need not add up to the difference between the volume and the
    empty volume, because windows interact. For a model that is a sum over patches they do add up, for every window.
    """
    if window < 1:
        raise ValueError(f"--window {window}: give 1 or more patches")
    values = []
    with evaluating(model):
        for volume_CZYX, empty_CZYX, target in zip(volume_BCZYX, empty_volume(volume_BCZYX), target_B, strict=True):
            values.append(_occlude_one(model, volume_CZYX, empty_CZYX, target, window, batch))
    return torch.stack(values)


def window_of_patch(grid: tuple[int, int, int], window: int) -> Tensor:
    """(z, y, x): the index, from 0, of the window of each patch."""
    z, y, x = (torch.arange(side) // window for side in grid)
    return (z[:, None, None] * (int(y[-1]) + 1) + y[:, None]) * (int(x[-1]) + 1) + x


def _occlude_one(
    model: VolumeClassifier, volume_CZYX: Tensor, empty_CZYX: Tensor, target: Tensor, window: int, batch: int
) -> Tensor:
    """(L,): the drops of one volume."""
    patch, windows_zyx = model.config.patch_size, window_of_patch(model.grid, window).to(volume_CZYX.device)
    windows_ZYX = windows_zyx
    for axis in range(3):
        windows_ZYX = windows_ZYX.repeat_interleave(patch, dim=axis)
    tissue_ZYX = (volume_CZYX != empty_CZYX).any(dim=0)
    with_tissue = windows_ZYX[tissue_ZYX].unique()
    drops = volume_CZYX.new_zeros(int(windows_zyx.max()) + 1, dtype=torch.float32)
    whole = log_odds(model(volume_CZYX.unsqueeze(0)).float(), target.expand(1))
    chunks = with_tissue.split(batch)
    for numbers in tqdm(chunks, desc="occlusion", leave=False, disable=not sys.stderr.isatty()):
        emptied = windows_ZYX == numbers.reshape(-1, 1, 1, 1)
        volumes = torch.where(emptied.unsqueeze(1), empty_CZYX, volume_CZYX)
        drops[numbers] = whole - log_odds(model(volumes).float(), target.expand(len(numbers)))
    return drops[windows_zyx].flatten()
