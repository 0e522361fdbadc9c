"""Two ranks on this machine's CPU: a training step under DistributedDataParallel, by default and with our settings.

    python -m benchmarks.bench_ddp --threads 1

One run alternates both kinds of step.
"""

import argparse
import socket
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measuring.commandline import begin, parse
from models import create_model
from util.distributed.world import World
from util.ranges import positive

TITLE = "Two gloo ranks on one CPU: the step and what it broadcasts"
CPU = torch.device("cpu")
SHALLOW = {"depth": 2, "decoder_depth": 1}
CASES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mae_3d_vim_small_patch16", {}),
    ("mae_3d_vim_small_patch8", SHALLOW),
    ("mae_3d_vim_small_patch4", SHALLOW),
)
QUICK: tuple[tuple[str, dict[str, Any]], ...] = (
    ("mae_3d_vim_tiny_patch8", {**SHALLOW, "img_size": 16, "embed_dim": 24, "decoder_embed_dim": 24}),
)
MIB = 1 << 20


def main(argv: list[str] | None = None) -> None:
    def extra(parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--pairs", type=positive, default=5, help="timed steps of each kind, after two untimed ones"
        )

    options = begin(parse("ddp", TITLE, argv, extra))
    options.report.text(
        "Buffers are constant: position embeddings. Median of the steps, lowest to highest in brackets."
    )
    rows: list[list[object]] = []
    header = ["model", "buffers, MiB", "broadcast a step, MiB: default", "ours", "step, s: default", "ours"]
    options.report.table(header, rows)
    for name, fields in QUICK if options.quick else CASES:
        rows.append([_title(name, fields), *two_ranks(name, fields, options.args.pairs)])
        options.finish()


def two_ranks(name: str, fields: dict[str, Any], pairs: int) -> list[object]:
    """Cells of a row: MiB of buffers, then MiB broadcast and seconds of a step, each by default and as we set it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = mp.get_context("spawn")
    results = context.SimpleQueue()
    mp.spawn(_rank, args=(port, name, fields, pairs, torch.get_num_threads(), results), nprocs=2)
    return results.get()


def broadcast_bytes(step: Callable[[], object]) -> int:
    """Bytes that DistributedDataParallel broadcasts in one call of `step`."""
    total = 0
    broadcast = dist._broadcast_coalesced

    def counted(group: Any, tensors: Any, *rest: Any) -> None:
        nonlocal total
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        broadcast(group, tensors, *rest)

    with patch.object(dist, "_broadcast_coalesced", counted):
        step()
    return total


def _rank(rank: int, port: int, name: str, fields: dict[str, Any], pairs: int, threads: int, results: Any) -> None:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        steps = {"default": _step(name, fields, _default), "ours": _step(name, fields, World(rank, 2, CPU).wrap)}
        for step in steps.values():
            step()
        sent = {kind: broadcast_bytes(step) / MIB for kind, step in steps.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in steps}
        for pair in range(pairs):
            for kind in sorted(steps, reverse=bool(pair % 2)):
                dist.barrier()
                start = time.perf_counter()
                steps[kind]()
                seconds[kind].append(time.perf_counter() - start)
        if rank == 0:
            model = create_model(name, **{"img_size": 160, **fields})
            size = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers()) / MIB
            shown = {
                kind: f"{statistics.median(values):.3g} ({min(values):.3g}-{max(values):.3g})"
                for kind, values in seconds.items()
            }
            results.put([f"{size:.3g}", *(f"{sent[kind]:.3g}" for kind in steps), *(shown[kind] for kind in steps)])
    finally:
        dist.destroy_process_group()


def _default(model: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DistributedDataParallel(model)


def _step(name: str, fields: dict[str, Any], wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], object]:
    torch.manual_seed(0)
    model = create_model(name, **{"img_size": 160, **fields})
    config: Any = model.config
    wrapped = wrap(model.train())
    volume = torch.randn(1, config.in_chans, *config.img_size)

    def run() -> None:
        wrapped.zero_grad(set_to_none=True)
        wrapped(volume, 0.75).loss.backward()

    return run


def _title(name: str, fields: dict[str, Any]) -> str:
    return ", ".join([name, *(f"{field}={value}" for field, value in fields.items())])


if __name__ == "__main__":
    main()
