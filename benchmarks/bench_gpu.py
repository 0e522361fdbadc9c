"""Correctness of the GPU kernels, and their times relative to the least possible ones, line by line.

timeout 415 python3 -u -m benchmarks.bench_gpu --out gpu.txt --minutes 6.6 2>&1 | tee gpu.log
python -m benchmarks.bench_gpu --check scan-bf16                       one check only, printed
python -m benchmarks.bench_gpu --out gpu.txt --only kernels steps      sections whose titles contain these words

Needs a GPU, Triton, and the packages that models/ imports (timm, einops, torchvision, safetensors, huggingface_hub,
numpy) and, for the section that runs main_pretrain.py, tensorboard and tqdm. It needs no nibabel, openpyxl, torchio,
SimpleITK or nilearn, no data and no network. It has been tested without a GPU only, on torch 2.14.1 with Triton 3.8;
kernels also compile with Triton 3.6.

The most important sections come first. Results are appended line by line, so an interrupted run keeps them.
"Correctness" takes one to two and a half minutes: all checks run at the same time, each in its own process, together
with processes that only fill Triton's cache for the later sections. An access out of bounds makes the device unusable
for its process; the remaining sections then run in a new process.

Look for `BAD` and `FAILED`, first under "Correctness". Under "Kernels" and "Steps", `times` is the ratio to the floor,
which is computed from this run's ceilings. `host` next to the milliseconds of a step shows whether launching takes
longer than computing. "Other tables of constants" compares sizes of tiles and segments in ops/triton/scan.py and
host.py.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch

from benchmarks.gpu import checks as gpu_checks
from benchmarks.gpu import kernels as gpu_kernels
from benchmarks.gpu import steps as gpu_steps
from benchmarks.gpu.log import Log
from ops.triton import backend as gpu
from util import cli

CHECK_SECONDS = 150


def variant(index: int, log: Log) -> None:
    gpu_kernels.run_variant(gpu_kernels.VARIANTS[index], 1000)


def small_step(name: str, size: int, log: Log) -> None:
    for again in (False, True):
        gpu_steps.step_times(log, None, name, 1, size=size, repeats=1, grad_checkpointing=again)


# These run together with the checks and put the kernels of the later sections into Triton's cache.
WARM: dict[str, Callable[[Log], None]] = {
    **{f"variant-{index}": partial(variant, index) for index in range(len(gpu_kernels.VARIANTS))},
    **{f"step-{p}": partial(small_step, f"mae_3d_vim_small_patch{p}", 8 * p) for p in (16, 8, 4)},
    "step-fine": partial(small_step, "vim_3d_small_patch16", 96),
}


def run_together(log: Log, names: list[str], seconds: float) -> None:
    """Run all checks at the same time, each in its own process. Their lines are logged in the order of `names`."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        files = {name: Path(folder) / name for name in names}
        running = {}
        for name, file in files.items():
            command = [sys.executable, "-u", "-m", "benchmarks.bench_gpu", "--check", name]
            running[name] = subprocess.Popen(command, stdout=file.open("w"), stderr=subprocess.STDOUT)
        for name, process in running.items():
            try:
                process.wait(max(1, seconds - (time.monotonic() - started)))
            except subprocess.TimeoutExpired:
                process.kill()
                log(f"BAD  {name}: not finished after {seconds:.0f} s")
            output = files[name].read_text()
            if name in gpu_checks.CHECKS or process.returncode:
                log(f"-- {name}, exit code {process.returncode}, by {time.monotonic() - started:.0f} s")
                log("\n".join(output.splitlines()[-60:]))
        log(f"all in {time.monotonic() - started:.0f} s")


def sections(log: Log) -> list[tuple[str, float, Callable[[], object]]]:
    """(title, seconds that it may take, function), the most important first."""

    @cache
    def ceilings() -> gpu_kernels.Ceilings:
        return gpu_kernels.measure_ceilings(log)

    def kernels() -> None:
        for length, batch in ((64_000, 1), (16_000, 1), (8_000, 1), (1_000, 1), (1_000, 4)):
            log.attempt(f"scan {length}", lambda: gpu_kernels.scan_times(log, ceilings(), length, batch))  # noqa: B023
            log.attempt(f"rest {length}", lambda: gpu_kernels.other_times(log, ceilings(), length, batch))  # noqa: B023
        log.attempt("scan fp32", lambda: gpu_kernels.scan_times(log, ceilings(), 16_000, 1, torch.float32))

    def blocks() -> None:
        for length, batch in ((64_000, 1), (1_000, 1)):
            log.attempt(f"block {length}", lambda: gpu_kernels.block_times(log, length, batch, True))  # noqa: B023

    def steps(*cases: tuple[str, int, bool, bool]) -> None:
        for name, batch, again, detailed in cases:
            run = partial(gpu_steps.step_times, log, ceilings(), name, batch, detailed, grad_checkpointing=again)
            log.attempt(f"step {name} {batch}", run)
            torch.cuda.empty_cache()

    mae, classifier = "mae_3d_vim_small_patch{}".format, "vim_3d_small_patch{}".format
    first = [(mae(16), 1, False, True), (mae(8), 1, False, False), (mae(4), 1, False, True)]
    more = [(name(p), b, False, False) for name in (classifier, mae) for p in (16, 8) for b in (1, 4)]
    large = [(mae(4), 4, True, False), (classifier(4), 1, False, False), (classifier(4), 2, True, False)]
    return [
        ("Ceilings", 5, ceilings),
        ("Kernels", 15, kernels),
        ("Steps", 20, lambda: steps(*first)),
        ("Blocks", 10, blocks),
        ("Without the kernels", 5, lambda: gpu_kernels.chunked_times(log)),
        ("Step without the kernels, patch 16", 10, lambda: gpu_steps.step_times(
            log, ceilings(), mae(16), 1, repeats=2, warmup=1, scan_backend="chunked")),
        ("More steps", 20, lambda: steps(*more)),
        ("Patch 4", 20, lambda: steps(*large)),
        ("Graphs", 10, lambda: gpu_steps.graph_times(log, mae(16), 1)),
        ("50 updates of main_pretrain.py", 60, lambda: gpu_steps.training_curves(log)),
        ("Other tables of constants", 20, lambda: gpu_kernels.variant_times(log)),
        ("Step without the kernels, patch 4", 70, lambda: gpu_steps.step_times(
            log, ceilings(), mae(4), 1, repeats=1, warmup=0, scan_backend="chunked", grad_checkpointing=True)),
    ]  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    parser = cli.Parser(prog="python -m benchmarks.bench_gpu", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench_gpu.txt"), help="file that results are appended to")
    parser.add_argument(
        "--minutes", type=float, default=6.0, help="time for all sections; none starts that would end later"
    )
    parser.add_argument("--check", choices=(*gpu_checks.CHECKS, *WARM), help="run one check only, and print it")
    parser.add_argument(
        "--only", nargs="+", default=[], help="run the sections whose titles contain these words; default all"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first section")
    args = parser.parse_args(argv)
    cli.setup_logging()
    if not torch.cuda.is_available():
        raise ValueError("no GPU is visible to torch: this benchmark measures one")
    if args.check:
        (gpu_checks.CHECKS | WARM)[args.check](Log(None, args.minutes))
        return
    run(args, Log(args.out, args.minutes))


def run(args: argparse.Namespace, log: Log) -> None:
    if not args.first:
        triton = gpu.import_problem() or importlib.import_module("triton").__version__
        cores = torch.cuda.get_device_properties(0).multi_processor_count
        log(f"{torch.cuda.get_device_name()}, {cores} multiprocessors")
        log(f"python {platform.python_version()}, torch {torch.__version__}, triton {triton}")
    names = [*gpu_checks.CHECKS, *WARM]
    planned = [("Correctness", 60, lambda: run_together(log, names, CHECK_SECONDS)), *sections(log)]
    for index, (title, needs, what) in enumerate(planned):
        if index < args.first or not (not args.only or any(w.lower() in title.lower() for w in args.only)):
            continue
        log.section(title, needs, what)
        if not is_alive() and index + 1 < len(planned):
            log("The device no longer works for this process: the remaining sections run in a new one.")
            words = ["--out", str(args.out), "--minutes", str(log.left / 60), "--first", str(index + 1)]
            only = ["--only", *args.only] if args.only else []
            os.execv(sys.executable, [sys.executable, "-u", "-m", "benchmarks.bench_gpu", *words, *only])
    log(f"\ndone after {log.seconds:.0f} s")


def is_alive() -> bool:
    """Whether the device still works for this process. After an access out of bounds it does not."""
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return False
    torch.cuda.empty_cache()
    return True


if __name__ == "__main__":
    os.environ[gpu.SWITCH] = "1"  # "auto" uses the kernels, also in the processes that this one starts
    cli.run(main)
