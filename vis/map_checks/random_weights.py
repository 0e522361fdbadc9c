"""Sanity checks of maps: what a map still shows when the weights know nothing (Adebayo et al., arXiv 1810.03292)."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from models import VolumeClassifier, create_model

SEED = 0


def cascade(
    model: VolumeClassifier, name: str, fields: dict[str, Any], seed: int = SEED
) -> Iterator[tuple[str, VolumeClassifier]]:
    """(stage, model) with weights drawn anew from the top down: the head, then the last block with the final norm, then
    the upper half of the blocks, then everything. `model` stays as it is; name and fields as it was created."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = create_model(name, **fields)
    depth = model.config.depth
    device = next(model.parameters()).device
    for stage, first_block, everything in (
        ("head", depth, False), ("last block", depth - 1, False), ("upper half", depth // 2, False),
        ("everything", 0, True),
    ):  # fmt: skip
        drawn = ["head.", *(f"blocks.{index}." for index in range(first_block, depth))]
        drawn += ["norm_f."] if first_block < depth else []
        state = {
            key: value if everything or key.startswith(tuple(drawn)) else model.state_dict()[key]
            for key, value in fresh.state_dict().items()
        }
        randomised = copy.deepcopy(model)
        randomised.load_state_dict(state)
        yield stage, randomised.to(device).eval()


def similarity(values: np.ndarray, others: np.ndarray, occupied: np.ndarray) -> float:
    """Spearman's rank correlation of two maps (L,) over the patches that hold brain; 0 if one of them is constant."""
    first, second = values[occupied], others[occupied]
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
