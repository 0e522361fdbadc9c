"""Features of a frozen encoder, one vector per subject and layer, with a cache on disk."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn

from util.data.dataset import PreparedVolumes
from util.data.folder import volume_path
from util.files.atomic import atomic_write
from util.training.eval_mode import evaluating
from util.training.loader import eval_loader

logger = logging.getLogger(__name__)

# (B, L, E) -> (B, E)
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda tokens_BLE: tokens_BLE.mean(1),
    "max": lambda tokens_BLE: tokens_BLE.amax(1),
}


def extract_features(
    model: nn.Module,
    volumes: PreparedVolumes,
    layers: Sequence[int],
    *,
    pool: str = "mean",
    batch_size: int = 1,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """(subjects, layers, E) float32: tokens after each of `layers` and the final norm, pooled over the volume.

    The model needs timm's forward_intermediates. It sees every volume whole, in evaluation mode, and has its former
    mode afterwards. Raises ValueError if a feature is not finite.
    """
    model = model.to(device)
    batches = []
    with evaluating(model):
        for volume_BCZYX, _ in eval_loader(volumes, batch_size=batch_size, num_workers=0):
            tokens = model.forward_intermediates(  # pyright: ignore[reportCallIssue]
                volume_BCZYX.to(device), list(layers), norm=True, intermediates_only=True
            )
            batches.append(torch.stack([POOLS[pool](tokens_BLE.float()) for tokens_BLE in tokens], dim=1).cpu().numpy())
    features = np.concatenate(batches)
    if not np.isfinite(features).all():
        subject = volumes.subjects[int(np.argwhere(~np.isfinite(features))[0, 0])]
        raise ValueError(f'the features of subject "{subject}" are not finite: the weights or the volume are damaged')
    return features


def cached(folder: Path, depends_on: dict[str, Any], compute: Callable[[], np.ndarray]) -> np.ndarray:
    """The array that `compute` returns, cached in `folder`. depends_on: the JSON values that the array depends on,
    which are the key of the cache. A cache file that cannot be read is computed again."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()
    path = folder / f"{key[:32]}.npy"
    if path.exists():
        try:
            with path.open("rb") as file:
                array = np.load(file, allow_pickle=False)
            logger.info("features read from %s", path)
            return array
        except (ValueError, OSError, EOFError, BadZipFile) as error:
            logger.warning("%s cannot be read (%s): computing the features again", path, error)
    array = compute()
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)
    return array


def file_hash(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of_volumes(volumes: PreparedVolumes) -> list[list[Any]]:
    """[subject, contrast, bytes, time of the last change] of every file. It changes if volumes are prepared again."""
    files = [(subject, contrast) for subject in volumes.subjects for contrast in volumes.contrasts]
    stats = [volume_path(volumes.root, subject, contrast).stat() for subject, contrast in files]
    return [[*file, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)]
