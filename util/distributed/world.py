"""The ranks of a training. The same calls work on a single process, where collectives do nothing."""

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

# The option of DistributedDataParallel that sends buffers in every forward pass: torch 2.14 renamed it.
HAS_NEW_NAME = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
NO_BUFFER_SYNC: dict[str, Any] = {"forward_sync_buffers" if HAS_NEW_NAME else "broadcast_buffers": False}


@dataclass(frozen=True)
class World:
    """This process among the ranks: number `rank` of `size`, computing on `device`. control: a gloo group for messages
    between processes."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a tensor over all ranks."""
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

    def on_main_rank(self, work: Callable[[], None]) -> None:
        """Call `work` on the main rank while the others wait. If it raises, every rank raises the same error."""
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

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel if there are several ranks.

        Parameters and buffers start as those of rank 0. Buffers are not sent again in every forward pass: ours are
        constant (147 MB of position embeddings at patch 4, 160^3), and no module has running statistics.
        """
        if self.size == 1:
            return model
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True, **NO_BUFFER_SYNC)


def choose_device(name: str) -> str:
    """The device that --device selects: "auto" is CUDA if the machine has it, else the CPU. Raises ValueError if CUDA
    is selected but missing."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: this machine has no usable CUDA device; use --device cpu")
    return name


@contextmanager
def join_world(device_name: str, timeout: timedelta = timedelta(minutes=30)) -> Iterator[World]:
    """The ranks that torchrun's environment variables describe (gloo on CPU, nccl on CUDA), or a single process.

    device_name: "auto", "cpu" or "cuda", as in choose_device.
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
    device_id = device if device.type == "cuda" else None  # otherwise nccl guesses the device at the first collective
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout, device_id=device_id)
    try:
        control = dist.new_group(backend="gloo", timeout=timeout)
        yield World(rank, size, device, control)  # pyright: ignore[reportArgumentType]  # this rank is in it
    finally:
        dist.destroy_process_group()
