"""One process or many: the same calls, collectives that do nothing on a single process."""

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from util.distributed.rendezvous import meet

# What DistributedDataParallel calls it: torch 2.14 has a new name and warns of the old one.
HAS_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
BUFFERS_STAY: dict[str, Any] = {"forward_sync_buffers" if HAS_NEW_NAME else "broadcast_buffers": False}


@dataclass(frozen=True)
class World:
    """Who this process is: rank of size, computing on device. control: a gloo group for messages between hosts."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over ranks."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        dist.all_reduce(value)
        return value / self.size

    def gather(self, items: list[Any]) -> list[Any]:
        """The lists of all ranks joined, in rank order, on every rank."""
        if self.size == 1:
            return items
        parts: list[list[Any]] = [[] for _ in range(self.size)]
        dist.all_gather_object(parts, items, group=self.control)
        return [item for part in parts for item in part]

    def together(self, work: Callable[[], None]) -> None:
        """Have the main rank do some work while the others wait; where it raises, all of them do."""
        error: Exception | None = None
        if self.is_main:
            try:
                work()
            except Exception as caught:
                if self.size == 1:
                    raise
                error = caught
        for problem in self.gather([error] if self.is_main else []):
            if problem is not None:
                raise problem

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model under DistributedDataParallel where there is more than one rank.

        Parameters and buffers start as rank 0's. Buffers are not sent again in every forward pass: ours are constant
        (147 MB of position embeddings at patch 4, 160^3), and no module has running statistics.
        """
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **BUFFERS_STAY)


def choose_device(name: str) -> str:
    """What --device means here: "auto" is CUDA where present, else the CPU. Raises ValueError for CUDA without one."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this machine has no usable CUDA device; use --device cpu")
    return name


@contextmanager
def join_world(device_name: str, timeout: timedelta = timedelta(minutes=30)) -> Iterator[World]:
    """The world that torchrun's environment describes (gloo on CPU, nccl on CUDA), or a world of one.

    device_name: "auto" (CUDA where present), "cpu" or "cuda". Raises ValueError for a device that is not there.
    """
    device_name = choose_device(device_name)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(0, 1, torch.device(device_name))
        return
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device(device_name, local_rank) if device_name == "cuda" else torch.device(device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    store = meet(store, rank, size, timeout)
    backend = "nccl" if device.type == "cuda" else "gloo"
    device_id = device if device.type == "cuda" else None  # else nccl guesses it at the first collective
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=device_id)
    try:
        control = dist.new_group(backend="gloo", timeout=timeout)
        yield World(rank, size, device, control)  # pyright: ignore[reportArgumentType]  # this rank is in it
    finally:
        dist.destroy_process_group()
