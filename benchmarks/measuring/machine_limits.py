"""Peak rates of this machine: matrix products at the model's shapes, memory traffic, exponentials.

python -m benchmarks.measuring.machine_limits [--threads 2] [--quick]
"""

from dataclasses import dataclass

import torch

from benchmarks.measuring.commandline import Options, begin, parse
from benchmarks.measuring.timing import Statistic, lowest, measure
from util import cli
from util.training.precision import slowdown

MAX_ROWS = 16_000  # rates do not change beyond; the time of a longer product is extrapolated
SMALL_GEMMS = {  # projections of the small model: (in, out) of the encoder (E = 384), and dt_proj of the decoder
    "in_proj": (384, 1536),
    "out_proj": (768, 384),
    "x_proj": (768, 56),
    "dt_proj": (24, 768),
    "decoder dt_proj": (12, 384),
}


@dataclass(frozen=True)
class Product:
    """Seconds of y = x W', of dx = dy W and of dW = dy' x, and the GFLOP of each."""

    forward: float
    dx: float
    dw: float
    gflop: float

    def rates(self) -> str:
        return " / ".join(f"{self.gflop / seconds:.0f}" for seconds in (self.forward, self.dx, self.dw))


def product(rows: int, inner: int, outer: int, dtype: torch.dtype, of: Statistic = lowest) -> Product:
    """The matrix products of a linear layer inner -> outer on `rows` tokens."""
    used = min(rows, MAX_ROWS)
    x, dy = torch.randn(used, inner).to(dtype), torch.randn(used, outer).to(dtype)
    weight = torch.randn(outer, inner).to(dtype)
    y, dx, dw = torch.empty_like(dy), torch.empty_like(x), torch.empty_like(weight)
    products = (
        lambda: torch.mm(x, weight.t(), out=y),
        lambda: torch.mm(dy, weight, out=dx),
        lambda: torch.mm(dy.t(), x, out=dw),
    )
    seconds = [of(measure(run, repeats=7, budget=0.5)) * rows / used for run in products]
    return Product(*seconds, gflop=2e-9 * rows * inner * outer)


def copy_rate(elements: int = 1 << 26, of: Statistic = lowest) -> float:
    """GB/s read and written by copying float32 tensors that do not fit into a cache."""
    source, target = torch.ones(elements), torch.ones(elements)
    return 8e-9 * elements / of(measure(lambda: target.copy_(source), repeats=7, warmup=2, budget=1.0))


def read_rate(elements: int = 1 << 26, of: Statistic = lowest) -> float:
    """GB/s read by a sum over a float32 tensor that does not fit into a cache."""
    source = torch.ones(elements)
    return 4e-9 * elements / of(measure(source.sum, repeats=7, warmup=2, budget=1.0))


def exp_rate(elements: int = 1 << 15, of: Statistic = lowest) -> float:
    """1e9 exponentials per second by torch.exp2, which is several times faster than torch.exp, in float32 and in cache.

    So few elements run on one thread, because waking a second one would take longer than the work. The rate is
    multiplied by the number of threads.
    """
    x, y = torch.linspace(-20, 0, elements), torch.empty(elements)

    def run() -> None:
        for _ in range(20):
            torch.exp2(x, out=y)

    alone = 20e-9 * elements / of(measure(run, repeats=50, warmup=3, budget=1.0))
    return alone * torch.get_num_threads()


def add_ceilings(options: Options) -> None:
    """Measure the machine and put the figures into the report."""
    rows, elements = (64, 1 << 16) if options.quick else (8_000, 1 << 26)
    options.report.section("Ceilings of this run", f"Best of several repetitions; products on {rows} tokens.")
    types = {"float32": torch.float32}
    if slowdown("bf16") < 1:  # otherwise the products take minutes, and no case uses them
        types["bfloat16"] = torch.bfloat16
    options.report.table(
        ["GEMM, GFLOP/s forward / dx / dW", *types],
        [
            [f"{name}, {inner} -> {outer}", *(product(rows, inner, outer, t).rates() for t in types.values())]
            for name, (inner, outer) in SMALL_GEMMS.items()
        ],
    )
    options.report.text(
        f"Memory: read {read_rate(elements):.1f} GB/s, copy {copy_rate(elements):.1f} GB/s (read and written). "
        f"torch.exp2: {exp_rate():.2f} G/s, one core times the threads."
    )


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("ceilings", "The machine's ceilings", argv))
    add_ceilings(options)
    options.finish()


if __name__ == "__main__":
    cli.run(main)
