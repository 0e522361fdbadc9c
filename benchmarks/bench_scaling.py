"""Time and memory per token from 125 to 64,000 tokens: bidirectional Mamba against a ViT of the same widths.

python -m benchmarks.bench_scaling [--precision bf16] [--limit 40] [--quick]
"""

import argparse
import itertools
import logging
import math
from pathlib import Path
from typing import NamedTuple

import matplotlib

from benchmarks.measuring.commandline import begin, parse
from benchmarks.measuring.machine_limits import add_ceilings
from benchmarks.measuring.own_process import Failed, available_gib, call_isolated
from benchmarks.measuring.timing import Timing
from benchmarks.measuring.training_step import CPU, Case, measure_step, step_arguments, timing_of
from util import cli
from util.training.precision import choose

logger = logging.getLogger(__name__)

SIDES = (20, 28, 40, 60, 80, 112, 160)  # voxels at patch 4: 125 to 64,000 tokens
FAMILIES = {"BiMamba": "mae_3d_vim_small_patch4", "ViT": "mae_3d_vit_small_patch4"}
NOTE = (
    "Pre-training step of the small autoencoders at patch 4 on cubes of growing side, with mask ratio 0.75 and block "
    "checkpointing: the same model with different numbers of tokens. Forward and backward pass, a process of its own "
    "per point, median after one warm-up. Memory per token is the process's peak minus that of the smallest cube, per "
    "further token. Attention is torch's scaled_dot_product_attention. Times in brackets are extrapolated from the two "
    "longest measured ones."
)


class Point(NamedTuple):
    tokens: int
    timing: Timing
    peak_mib: float

    @property
    def per_token(self) -> float:
        """Microseconds."""
        return 1e6 * self.timing.median / self.tokens


def options_of(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="bf16")
    parser.add_argument("--limit", type=float, default=40.0, help="longer steps are extrapolated, seconds")


def extrapolate(points: list[Point], tokens: int) -> float | None:
    """Seconds at `tokens` by the power law through the last two points."""
    if len(points) < 2:
        return None
    (a, first, _), (b, second, _) = points[-2:]
    return second.median * (tokens / b) ** (math.log(second.median / first.median) / math.log(b / a))


def crossover(one: list[Point], other: list[Point]) -> float | None:
    """Number of tokens from which on `one` is always faster, by logarithmic interpolation; None if it never is."""
    pairs = [(a.tokens, math.log(a.timing.median / b.timing.median)) for a, b in zip(one, other)]
    if not pairs or pairs[-1][1] >= 0:
        return None
    for (n, before), (m, after) in reversed(list(itertools.pairwise(pairs))):
        if before >= 0 > after:
            return n * (m / n) ** (before / (before - after))
    return pairs[0][0]


def measure_family(model: str, sides: tuple[int, ...], args: argparse.Namespace) -> tuple[list[Point], dict[int, str]]:
    """Measured points, and a text for each point that was not measured: {tokens: text}."""
    points: list[Point] = []
    unmeasured: dict[int, str] = {}
    for side in sides:
        tokens = (side // 4) ** 3
        expected = extrapolate(points, tokens)
        if unmeasured or (expected is not None and expected > args.limit):
            unmeasured[tokens] = f"({expected:.3g} s)" if expected else "skipped"
            continue
        fields = {"img_size": side, "grad_checkpointing": True, "drop_path_rate": 0.0}
        fields |= {"depth": 1, "decoder_depth": 1} if args.quick else {}
        case = Case(model, args.precision, threads=args.threads, fields=fields, repeats=5, warmup=1, budget=4.0)
        try:
            if side == max(SIDES) and available_gib() < 10:
                raise Failed(f"needs about 10 GiB, {available_gib():.1f} are free")
            result = call_isolated(measure_step, with_parts=False, **step_arguments(case))
        except Failed as reason:
            unmeasured[tokens] = f"skipped: {reason}"
            continue
        points.append(Point(tokens, timing_of(result), result["peak_mib"]))
        logger.info("%s %d tokens: %s, %.0f MiB", model, tokens, points[-1].timing, points[-1].peak_mib)
    return points, unmeasured


def rows_of(points: list[Point], unmeasured: dict[int, str]) -> list[list[object]]:
    base = points[0]
    rows: list[list[object]] = []
    for point in points:
        more = point.peak_mib - base.peak_mib
        memory = f"{1024 * more / (point.tokens - base.tokens):.1f}" if point is not base else ""
        rows.append([point.tokens, point.timing, point.per_token, f"{point.peak_mib:.0f}", memory])
    return rows + [[tokens, text, "", "", ""] for tokens, text in unmeasured.items()]


def flatness(points: list[Point]) -> str:
    """A sentence on the variation of the time per token from 1,000 tokens on."""
    times = [point.per_token for point in points if point.tokens >= 1000]
    if len(times) < 2:
        return ""
    least, most = min(times), max(times)
    return f"Time per token from 1,000 tokens on: {least:.3g} to {most:.3g} us, a factor of {most / least:.2f}."


def plot(families: dict[str, list[Point]], path: Path) -> None:
    """Two panels, PNG: microseconds per token and peak GiB over tokens."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt  # after the backend is chosen

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, points in families.items():
        tokens = [point.tokens for point in points]
        axes[0].plot(tokens, [point.per_token for point in points], "o-", label=name)
        axes[1].plot(tokens, [point.peak_mib / 1024 for point in points], "o-", label=name)
    for ax, label in zip(axes, ("microseconds per token", "peak memory of the process, GiB"), strict=True):
        ax.set(xscale="log", yscale="log", xlabel="tokens", ylabel=label)
        ax.grid(True, which="both", alpha=0.3)
        ax.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("scaling", "Cost per token", argv, options_of))
    args, report = options.args, options.report
    args.precision = choose(args.precision, CPU).used
    report.section("Steps", f"{NOTE} Precision {args.precision}.")
    families: dict[str, list[Point]] = {}
    for name, model in FAMILIES.items():
        families[name], unmeasured = measure_family(model, (8, 12, 16) if args.quick else SIDES, args)
        report.section(name)
        if not families[name]:
            report.text(f"Nothing measured: {unmeasured}")
            continue
        report.table(
            ["tokens", "seconds", "us per token", "peak MiB", "KiB per token"], rows_of(families[name], unmeasured)
        )
        report.text(flatness(families[name]))
        report.write()
    at = crossover(families["BiMamba"], families["ViT"])
    report.section("Crossover", f"BiMamba is faster from {at:.0f} tokens on." if at else "None measured.")
    plot(families, report.path(".png"))
    report.text(f"![time and memory over tokens]({report.path('.png').name})")
    add_ceilings(options)
    options.finish()


if __name__ == "__main__":
    cli.run(main)
