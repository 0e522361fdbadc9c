"""Volumes per second that the two ways of augmenting deliver, compared with those that a training step consumes.

python -m benchmarks.bench_data [--model mae_3d_vim_small_patch16] [--num_workers 2] [--quick]
"""

import argparse
import itertools
import logging
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring.commandline import begin, parse
from benchmarks.measuring.machine_limits import add_ceilings
from benchmarks.measuring.timing import measure
from benchmarks.measuring.training_step import CPU, Case, make_step
from util import cli, ranges
from util.data.dataset import PreparedVolumes
from util.data.device_input import AugmentWhere, training_input
from util.data.folder import CONTRASTS, volume_path
from util.distributed.world import World
from util.training.loader import start_epoch, train_loader
from util.training.precision import choose

logger = logging.getLogger(__name__)

WAYS: tuple[AugmentWhere, ...] = ("loader", "device")
WORLD = World(0, 1, torch.device("cpu"))
NOTE = (
    "Prepared volumes (uint8, four contrasts, a ball of brain that fills 52% of the cube's side), batch 1, one epoch "
    "after the loader's start. Core-seconds are the processor time of all processes per volume: a CPU that also trains "
    "loses this time. Fed step: training steps whose input is loaded and augmented, in volumes per second."
)
HEADER = ["--augment", "volumes/s, loading alone", "core-seconds per volume", "volumes/s, fed step", "of the bare step"]


def write_volumes(root: Path, count: int, side: int) -> None:
    """`count` subjects of uint8 noise in a ball, in the layout of a prepared folder."""
    generator = np.random.default_rng(0)
    axis = np.linspace(-1, 1, side)
    ball = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2 < 0.8
    for subject, contrast in itertools.product(range(count), CONTRASTS):
        path = volume_path(root, f"sub-{subject:02d}", contrast)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.where(ball, generator.integers(40, 255, ball.shape), 0).astype(np.uint8))


def inputs(volumes: PreparedVolumes, where: AugmentWhere, num_workers: int) -> Iterator[torch.Tensor]:
    """One epoch of model inputs (1, C, Z, Y, X), augmented."""
    data, to_input = training_input(volumes, where, augment=True)
    loader = train_loader(data, batch_size=1, world=WORLD, seed=0, num_workers=num_workers, pin_memory=False)
    start_epoch(loader, 0)
    for batch in loader:
        yield to_input(batch[0])


def core_seconds() -> float:
    """Processor time of this process and of its finished children."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def rate(volumes: PreparedVolumes, where: AugmentWhere, num_workers: int, case: Case | None) -> tuple[float, float]:
    """Volumes per second and core-seconds per volume of an epoch. With a case, a training step follows each input."""
    step = make_step(case.build(), case) if case else None
    started, used = time.perf_counter(), core_seconds()
    for _ in inputs(volumes, where, num_workers):
        if step is not None:
            step()
    seconds = time.perf_counter() - started
    return len(volumes) / seconds, (core_seconds() - used) / len(volumes)


def options_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="mae_3d_vim_small_patch16", help="model of the training step")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--num_workers", type=int, default=2, help="data-loading processes")
    parser.add_argument("--volumes", type=ranges.positive, default=12, help="volumes of one epoch")


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("data", "Data path", argv, options_of))
    args, report = options.args, options.report
    side, count = (32, 2) if options.quick else (160, args.volumes)
    fields = {"img_size": side, **({"embed_dim": 48, "depth": 1, "decoder_depth": 1} if options.quick else {})}
    precision = choose(args.precision, CPU).used
    case = Case(args.model, precision, fields=fields)
    bare = 1 / measure(make_step(case.build(), case), repeats=5).median
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_volumes(Path(folder), count, side)
        volumes = PreparedVolumes(folder)
        for where in WAYS:
            alone, cost = rate(volumes, where, args.num_workers, None)
            fed, _ = rate(volumes, where, args.num_workers, case)
            rows.append([where, alone, cost, fed, f"{100 * fed / bare:.0f}%"])
            logger.info("%s", "  ".join(map(str, rows[-1])))
    report.section("Volumes per second", f"{NOTE} {args.num_workers} data-loading processes.")
    report.table(HEADER, rows)
    report.text(f"The step of {args.model} in {precision} without loading consumes {bare:.3g} volumes/s.")
    add_ceilings(options)
    options.finish()


if __name__ == "__main__":
    cli.run(main)
