"""One training step of any registered model: seconds, peak memory, parts, and the ratio to the least possible time.

python -m benchmarks.bench_step                                   the cases of the README
python -m benchmarks.bench_step --models mae_3d_vim_small_patch8 vim_3d_base_patch16 --precision bf16 --threads 1
python -m benchmarks.bench_step --models mae_3d_vim_small_patch4 --precision bf16 --fields grad_checkpointing=True
"""

import argparse
import logging
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.measuring.commandline import Options, begin, parse
from benchmarks.measuring.machine_limits import add_ceilings
from benchmarks.measuring.own_process import Failed, available_gib, call_isolated
from benchmarks.measuring.peers import mambapy_problem
from benchmarks.measuring.training_step import CPU, Case, measure_step, step_arguments, timing_of
from models import list_models
from util import cli, ranges
from util.options.groups import parse_model_kwargs
from util.training import precision as half
from util.training.precision import Precision

logger = logging.getLogger(__name__)

SMALL = ("mae_3d_vim_small_patch{p}", "vim_3d_small_patch{p}")
CHECKPOINTED = {"grad_checkpointing": True}
ONCE: dict[str, Any] = {"warmup": 1, "budget": 1}  # for long steps
PEER_AT_8 = Case("mae_3d_vim_small_patch8", mixer="mambapy", fields=CHECKPOINTED, needs_gib=17, **ONCE)
DEFAULT = [
    *(Case(name.format(p=32)) for name in SMALL),
    *(Case(name.format(p=p), precision) for p in (16, 8) for name in SMALL for precision in ("fp32", "bf16")),
    *(
        Case(name.format(p=4), precision, fields=CHECKPOINTED, needs_gib=12, **ONCE)
        for name in SMALL
        for precision in ("fp32", "bf16")
    ),
    *(Case("mae_3d_vit_small_patch16", precision) for precision in ("fp32", "bf16")),
    Case("mae_3d_vit_small_patch8", "bf16", needs_gib=6, **ONCE),
    *(
        Case("mae_3d_vim_small_patch16", precision, mixer="mambapy", keeps_memory=keeps, needs_gib=7)
        for keeps in (True, False)
        for precision in ("fp32", "bf16")
    ),
    *(
        replace(PEER_AT_8, precision=precision, keeps_memory=keeps)
        for keeps in (True, False)
        for precision in ("fp32", "bf16")
    ),
    Case("mae_3d_vim_small_patch16", mixer="reference", fields=CHECKPOINTED, needs_gib=7, **ONCE),
]
TINY = {"img_size": 16, "embed_dim": 48, "depth": 1, "decoder_embed_dim": 48, "decoder_depth": 1, "num_heads": 3,
        "decoder_num_heads": 3}  # fmt: skip
QUICK = [
    Case("mae_3d_vim_tiny_patch8", fields=TINY, repeats=2),
    Case("mae_3d_vim_tiny_patch8", mixer="mambapy", fields=TINY, repeats=2),
]
HEADER = ["step", "precision", "forward + backward", "peak MiB", "floor s", "times the floor", "GEMM", "scan", "conv",
          "norm", "attention", "rest"]  # fmt: skip
NOTE = (
    "Batch 1, 160^3 x 4 contrasts and mask ratio 0.75 unless a field differs. Forward and backward pass without "
    "optimiser. Median (lowest-highest, repetitions) after three warm-ups, or after one for long steps. Each case runs "
    "in a process of its own: peak MiB is its highest resident memory. The floor is computed from products timed alone "
    "at the model's shapes, exponentials and the memory rate (benchmarks/measuring/step_floor.py). These are measured "
    "again in the same process after every repetition, as means, because the speed of a shared host changes: each "
    "repetition is divided by the floor measured right after it. Parts: seconds of one profiled step. The fused "
    "mixer's own time, including its convolution, is in scan. A peer's scan consists of products and elementwise "
    "operations and is counted there. Default allocator: glibc's default settings, which a peer's users have; "
    "otherwise it keeps memory between steps, as our trainings set it (util/process/allocator.py)."
)


def options_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", metavar="NAME", help="names from models.list_models(); default a table")
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"], help="with --models")
    parser.add_argument("--mixer", choices=("ours", "mambapy", "reference"), default="ours", help="with --models")
    parser.add_argument("--fields", nargs="*", default=[], metavar="FIELD=VALUE", help="ModelConfig fields to change")
    parser.add_argument("--batch", type=ranges.positive, default=1, help="with --models")


def cases_of(args: argparse.Namespace) -> list[Case]:
    if args.models:
        if unknown := [name for name in args.models if name not in list_models(aliases=True)]:
            raise ValueError(f"--models {unknown[0]}{cli.nearest(unknown[0], list_models())}")
        fields = parse_model_kwargs(args.fields) | (TINY if args.quick else {})
        cases = [
            Case(name, precision, args.mixer, batch=args.batch, fields=fields)
            for name in args.models
            for precision in args.precision
        ]
    else:
        cases = QUICK if args.quick else DEFAULT
    return [replace(case, threads=args.threads) for case in cases]


def worthwhile(cases: list[Case], decide: Callable[..., Precision] = half.decide) -> tuple[list[Case], list[str]]:
    """The cases in precisions that are not slower here than float32, and a line on each precision left out."""
    decisions = {name: decide(name, CPU) for name in sorted({case.precision for case in cases})}
    lines = [f"No cases in {name}: {one.reason}." for name, one in decisions.items() if one.used != name]
    return [case for case in cases if decisions[case.precision].used == case.precision], lines


def obstacle(case: Case) -> str | None:
    """Why a case cannot run here."""
    if case.mixer == "mambapy" and (problem := mambapy_problem()):
        return problem
    free = available_gib()
    return f"needs about {case.needs_gib:g} GiB, {free:.1f} are free" if free < case.needs_gib else None


def row(case: Case) -> list[object]:
    """One row of the table: figures, or the reason why there are none."""
    first: list[object] = [case.title, case.precision]
    problem = obstacle(case)
    try:
        if problem:
            raise Failed(problem)
        result = call_isolated(measure_step, **step_arguments(case))
    except Failed as reason:
        return [*first, f"skipped: {reason}", *[""] * (len(HEADER) - 3)]
    timing, floors = timing_of(result), result["floors"]
    times = sorted(seconds / floor for seconds, floor in zip(timing.seconds, floors, strict=True))
    ratio = f"{statistics.median(times):.2f} ({times[0]:.2f}-{times[-1]:.2f})"
    peak, floor = f"{result['peak_mib']:.0f}", statistics.median(floors)
    return [*first, timing, peak, floor, ratio, *result["parts"].values()]


def main(argv: list[str] | None = None) -> None:
    args = parse("step", "Training steps", argv, options_of)
    if args.models:
        args.theme = "step_chosen"  # does not replace the table of the README
    options = begin(args)
    cases, left_out = worthwhile(cases_of(options.args))
    add_ceilings(options)
    options.report.section("Steps", NOTE)
    for line in left_out:
        logger.warning("%s", line)
        options.report.text(line)
    measure_cases(options, cases)
    options.finish()


def measure_cases(options: Options, cases: list[Case]) -> None:
    rows: list[list[object]] = []
    options.report.table(HEADER, rows)
    for number, case in enumerate(cases, 1):
        rows.append(row(case))
        options.report.write()
        logger.info("%d/%d %s", number, len(cases), "  ".join(map(str, rows[-1][:6])))


if __name__ == "__main__":
    cli.run(main)
