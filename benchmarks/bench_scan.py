"""The selective scan alone with every backend: compared with the specification, then timed.

python -m benchmarks.bench_scan [--threads 2] [--quick]
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.measuring.commandline import begin, parse
from benchmarks.measuring.machine_limits import add_ceilings, exp_rate
from benchmarks.measuring.peers import mambapy_problem, pscan_scan
from benchmarks.measuring.timing import measure
from ops import available_backends, dispatch
from ops.arguments import ScanInputs
from util import cli
from util.process.allocator import keep_memory

logger = logging.getLogger(__name__)

Scan = Callable[..., Tensor]
STATES = 16
SIZES = ((250, 768), (2_000, 768), (16_000, 768), (64_000, 384), (64_000, 768))
LONGEST = {"reference": 250, "chunked": 2_000, "mambapy pscan": 2_000}  # longer scans take minutes or all memory
CHECKED = (67, 48)  # length and channels of the value check
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 4e-2}  # of the largest value of each output and gradient
HEADER = ["L x I", "backend", "type", "forward", "forward + backward", "G elements/s forward", "and backward",
          "elements per exp, forward", "and backward"]  # fmt: skip


def scan_arguments(length: int, channels: int, dtype: torch.dtype) -> dict[str, Any]:
    """Leaf tensors of one scan, as in a mixer: channel-last sequences in `dtype`, parameters in float32."""
    generator = torch.Generator().manual_seed(0)

    def sequence(width: int) -> Tensor:
        return torch.randn(1, length, width, generator=generator).to(dtype).transpose(1, 2).requires_grad_()

    return {
        "u": sequence(channels),
        "delta": sequence(channels),
        "A": (-torch.arange(1.0, STATES + 1).repeat(channels, 1)).requires_grad_(),
        "B": sequence(STATES),
        "C": sequence(STATES),
        "D": torch.ones(channels, requires_grad=True),
        "z": sequence(channels),
        "delta_bias": torch.linspace(-7, -2, channels).requires_grad_(),
        "delta_softplus": True,
    }


def backends() -> dict[str, Scan]:
    """The scans that can run here, by name."""
    ours: dict[str, Scan] = {
        name: lambda backend=name, **arguments: dispatch.scan(ScanInputs(**arguments), backend)[0]
        for name in available_backends()
        if name != "cuda"
    }
    return ours if mambapy_problem() else {**ours, "mambapy pscan": pscan_scan}


def value_error(scan: Scan, dtype: torch.dtype, length: int = CHECKED[0], channels: int = CHECKED[1]) -> float:
    """Largest error of the output and of any gradient against the specification in float64, relative to its largest
    value."""
    given = scan_arguments(length, channels, dtype)
    exact = {k: v.detach().double().requires_grad_() if isinstance(v, Tensor) else v for k, v in given.items()}
    actual, expected = _values(scan, given), _values(backends()["reference"], exact)
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(actual, expected, strict=True))


def _values(scan: Scan, arguments: dict[str, Any]) -> list[Tensor]:
    leaves = [value for value in arguments.values() if isinstance(value, Tensor)]
    out = scan(**arguments)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]


def check(scans: dict[str, Scan]) -> list[list[object]]:
    """Rows of errors. Raises ValueError if a backend computes something else: its speed would have no meaning."""
    rows: list[list[object]] = []
    for name, scan in scans.items():
        for dtype, tolerance in TOLERANCES.items():
            if dtype == torch.bfloat16 and name == "mambapy pscan":
                continue  # computes its state in the input's precision
            error = value_error(scan, dtype)
            if not error <= tolerance:
                raise ValueError(f"backend {name} in {dtype} differs from the specification by {error:.1e}: not timed")
            rows.append([name, str(dtype).removeprefix("torch."), f"{error:.1e}", f"{tolerance:.0e}"])
    return rows


def time_scan(scan: Scan, length: int, channels: int, dtype: torch.dtype) -> list[object]:
    """Cells: forward, forward + backward, and both as rates."""
    given = scan_arguments(length, channels, dtype)
    leaves = [value for value in given.values() if isinstance(value, Tensor)]
    cotangent = torch.randn(1, length, channels).to(dtype).transpose(1, 2)

    def forward() -> None:
        with torch.no_grad():
            scan(**given)

    def both() -> None:
        torch.autograd.grad(scan(**given), leaves, cotangent)

    timings = [measure(run, repeats=9, warmup=2, budget=1.5) for run in (forward, both)]
    rates = [1e-9 * length * channels * STATES / timing.median for timing in timings]
    exponentials = exp_rate()
    return [*timings, *rates, *(rate / exponentials for rate in rates)]


def main(argv: list[str] | None = None) -> None:
    options = begin(parse("scan", "Selective scan", argv))
    keep_memory()  # as the trainings do
    report, scans = options.report, backends()
    report.section("Values", "Against the sequential specification in float64: output and every gradient.")
    report.table(["backend", "type", "error", "allowed"], check(scans))
    add_ceilings(options)
    report.section(
        "Speed",
        f"Batch 1, {STATES} states; an element is one state of one channel at one position. Median (lowest-highest, "
        "repetitions) after two warm-up calls.",
    )
    rows = []
    for length, channels in [(32, 32)] if options.quick else SIZES:
        for name, scan in scans.items():
            for dtype in (torch.float32,) if name in LONGEST else TOLERANCES:
                if length <= LONGEST.get(name, length):
                    label = [f"{length} x {channels}", name, str(dtype).removeprefix("torch.")]
                    rows.append([*label, *time_scan(scan, length, channels, dtype)])
                    logger.info("%s", "  ".join(map(str, rows[-1][:5])))
    report.table(HEADER, rows)
    if problem := mambapy_problem():
        report.text(f"mambapy pscan skipped: {problem}")
    options.finish()


if __name__ == "__main__":
    cli.run(main)
