"""Data loaders whose order and randomness depend on seed and epoch only, never on what ran before."""

import random

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from util.distributed import World


def seed_all(*entropy: int) -> None:
    """Seed every generator from some non-negative numbers, such as seed, epoch and rank. Done before every epoch, so
    that a run that resumes there draws what an uninterrupted run drew."""
    value = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002  libraries below us (timm's Mixup) read the global generator
    torch.manual_seed(value)


def train_loader(
    dataset: Dataset, *, batch_size: int, world: World, seed: int, num_workers: int, pin_memory: bool
) -> DataLoader:
    """Shuffled batches of `batch_size` per rank; a global batch holds the same items for any number of ranks.

    The rest that fills no batch is left out and differs from epoch to epoch. Call `start_epoch` before each epoch.
    Raises ValueError if not even one global batch can be filled.
    """
    count = len(dataset)  # pyright: ignore[reportArgumentType]  # our datasets are sized
    if count < batch_size * world.size:
        raise ValueError(
            f"--batch_size {batch_size} on {world.size} rank(s) needs {batch_size * world.size} subjects, the training "
            f"data has {count}: lower --batch_size or the number of ranks, or add data"
        )
    sampler = DistributedSampler(dataset, world.size, world.rank, shuffle=True, seed=seed, drop_last=True)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        pin_memory=pin_memory and world.device.type == "cuda",
        drop_last=True,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),
    )


def start_epoch(loader: DataLoader, seed: int, epoch: int, rank: int) -> None:
    """Reshuffle for `epoch` and seed everything that is random in it, workers included."""
    assert isinstance(loader.sampler, DistributedSampler)
    assert loader.generator is not None
    loader.sampler.set_epoch(epoch)
    seed_all(seed, epoch, rank)
    loader.generator.manual_seed(int(torch.initial_seed()) % 2**63)


def eval_loader(dataset: Dataset, *, batch_size: int, num_workers: int) -> DataLoader:
    """The items in order, each exactly once."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers)
