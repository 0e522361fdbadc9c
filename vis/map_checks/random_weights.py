"""Sanity check by model randomisation: maps of models whose weights are redrawn (Adebayo et al., arXiv 1810.03292).

A map that stays similar when the weights are random depends on the input alone, not on what the model has learnt.
"""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from models import VolumeClassifier, create_model

SEED = 0


def randomised_models(
    model: VolumeClassifier, name: str, fields: dict[str, Any], seed: int = SEED
) -> Iterator[tuple[str, VolumeClassifier]]:
    """(stage, copy of the model with redrawn weights), randomised from the output to the input (cascading).

    The stages are: the head; also the last block and the final norm; also the upper half of the blocks; everything.
    name, fields: as `model` was created. `model` itself does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = create_model(name, **fields)
    depth = model.config.depth
    device = next(model.parameters()).device
    for stage, first_block, everything in (
        ("head", depth, False), ("last block", depth - 1, False), ("upper half", depth // 2, False),
        ("everything", 0, True),
    ):  # fmt: skip
        redrawn = ["head.", *(f"blocks.{index}." for index in range(first_block, depth))]
        redrawn += ["norm_f."] if first_block < depth else []
        state = {
            key: value if everything or key.startswith(tuple(redrawn)) else model.state_dict()[key]
            for key, value in fresh.state_dict().items()
        }
        randomised = copy.deepcopy(model)
        randomised.load_state_dict(state)
        yield stage, randomised.to(device).eval()


def rank_correlation(values: np.ndarray, others: np.ndarray, has_brain: np.ndarray) -> float:
    """Spearman's rank correlation of two maps (L,) over the patches that hold brain. 0 if a map is constant."""
    first, second = values[has_brain], others[has_brain]
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])
