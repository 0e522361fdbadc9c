"""Data loaders whose order and randomness depend on seed, epoch and place only, never on what ran before.

Nothing random is stored in a checkpoint: an item's augmentation follows from (seed, epoch, item), a step's draws from
(seed, epoch, step, rank), so a run that resumes in the middle of an epoch, with any number of data-loading processes,
draws what an uninterrupted run drew.
"""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from util.distributed.world import World
from util.process.stopping import keep_stop_handler

# The last number of an entropy names its purpose; it is not 0 because SeedSequence ignores zeros at the end.
ITEM, STEP, MASKS, ORDER = 1, 2, 3, 4


def seed_of(*entropy: int) -> int:
    """A seed from some non-negative numbers, such as seed, epoch and rank."""
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def seed_all(*entropy: int) -> None:
    """Seed every generator from some non-negative numbers."""
    value = seed_of(*entropy)
    random.seed(value)
    np.random.seed(value)  # noqa: NPY002  libraries below us (timm's Mixup) read the global generator
    torch.default_generator.manual_seed(value)  # torch.manual_seed asks every backend, which is slow
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)


class SeededItems(Dataset):
    """The items of `dataset` by (epoch, index); all generators are seeded by seed, epoch and index before each item."""

    def __init__(self, dataset: Dataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, place: tuple[int, int]) -> Any:
        epoch, index = place
        seed_all(self.seed, epoch, index, ITEM)
        return self.dataset[index]

    def names(self, indices: list[int]) -> list[str]:
        """Names of the items for messages: their subjects, where the dataset has `subjects`."""
        subjects = getattr(self.dataset, "subjects", None)
        return [str(index) if subjects is None else subjects[index] for index in indices]


class EpochOrder(Sampler[tuple[int, int]]):
    """(epoch, index) of this rank's items, reshuffled for every epoch; it starts after `first_step` batches.

    A global batch holds the same items for any number of ranks. The rest that ranks cannot share is left out.
    """

    def __init__(self, count: int, batch_size: int, world: World, seed: int) -> None:
        self.count, self.batch_size, self.world, self.seed = count, batch_size, world, seed
        self.epoch = self.first_step = 0

    def __len__(self) -> int:
        return self.count // self.world.size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        mine = self._order()[self.world.rank : len(self) * self.world.size : self.world.size]
        return iter([(self.epoch, index) for index in mine[self.first_step * self.batch_size :]])

    def global_items(self, steps: range) -> list[int]:
        """The items of these steps of the present epoch, of all ranks."""
        width = self.batch_size * self.world.size
        return self._order()[steps.start * width : steps.stop * width]

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed(seed_of(self.seed, self.epoch, ORDER))
        return torch.randperm(self.count, generator=generator).tolist()


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
    return DataLoader(
        SeededItems(dataset, seed),
        batch_size=batch_size,
        sampler=EpochOrder(count, batch_size, world, seed),
        num_workers=num_workers,
        pin_memory=pin_memory and world.device.type == "cuda",
        drop_last=True,
        persistent_workers=num_workers > 0,
        worker_init_fn=keep_stop_handler,
        generator=torch.Generator(),  # of its own: the workers' seeds are drawn from it, and nothing depends on them
    )


def start_epoch(loader: DataLoader, epoch: int, first_step: int = 0) -> None:
    """Reshuffle for `epoch` and begin after `first_step` batches; len(loader) stays that of the whole epoch."""
    assert isinstance(loader.sampler, EpochOrder)
    loader.sampler.epoch, loader.sampler.first_step = epoch, first_step


def names_of_steps(loader: DataLoader, steps: range) -> list[str]:
    """The subjects in these steps of the present epoch, on all ranks, sorted."""
    assert isinstance(loader.sampler, EpochOrder)
    assert isinstance(loader.dataset, SeededItems)
    return sorted(loader.dataset.names(loader.sampler.global_items(steps)))


def eval_loader(dataset: Dataset, *, batch_size: int, num_workers: int) -> DataLoader:
    """The items in order, each exactly once."""
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers)
