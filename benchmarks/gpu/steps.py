"""Whole training steps on a GPU, and some updates of main_pretrain.py compared with the CPU."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.bench_data import write_volumes
from benchmarks.gpu.checks import CUDA
from benchmarks.gpu.kernels import Ceilings
from benchmarks.gpu.log import Log
from benchmarks.gpu.timing import kernels, listing, milliseconds, peak_gib
from benchmarks.measuring.step_floor import Work
from models import MaskedAutoencoder3D, create_model
from util.run_folder import METRICS
from util.training.optim import Stepper, build_optimizer

ROOT = Path(__file__).resolve().parents[2]
RATIO = 0.75


def make_step(name: str, batch: int, size: int = 160, **fields: Any) -> tuple[Callable[[], object], Work]:
    """A step with forward pass, backward pass, clipping and update on random volumes, and its `Work`."""
    torch.manual_seed(0)
    model = create_model(name, img_size=size, **fields).to(CUDA).train()
    config: Any = model.config
    optimizer = build_optimizer(model, lr=1e-4, weight_decay=0.05, betas=(0.9, 0.95))
    stepper = Stepper(optimizer, CUDA, "bf16", 1.0)
    volume = torch.randn(batch, config.in_chans, *config.img_size, device=CUDA)
    noise, label = torch.rand(batch, config.tokens, device=CUDA), torch.zeros(batch, dtype=torch.long, device=CUDA)
    is_mae = isinstance(model, MaskedAutoencoder3D)

    def step() -> None:
        with stepper.autocast():
            loss = model(volume, RATIO, noise, return_pred=False).loss if is_mae else F.cross_entropy(
                model(volume), label)  # fmt: skip
        stepper.backward(loss)
        stepper.step()

    return step, Work(config, RATIO if is_mae else None, batch)


def step_times(log: Log, ceilings: Ceilings | None, name: str, batch: int, detailed: bool = False, repeats: int = 10,
               warmup: int = 2, **fields: Any) -> None:  # fmt: skip
    step, work = make_step(name, batch, **fields)
    took = milliseconds(step, repeats=repeats, warmup=warmup, budget=4)
    peak = peak_gib(step)
    started = time.perf_counter()
    step()
    host = 1e3 * (time.perf_counter() - started)
    torch.cuda.synchronize()
    text = f"  {name} B={batch} {fields or ''}: {took:.2f} ms, host {host:.1f} ms, peak {peak:.2f} GiB"
    if ceilings is not None:
        parts = ceilings.step(work)
        floor = sum(parts)
        text += f", floor {floor:.2f} ({', '.join(f'{x:.2f}' for x in parts)}), {took / floor:.1f} times"
    log(text)
    if detailed:
        log("\n".join(listing(kernels(step, calls=1))))


def graph_times(log: Log, name: str, batch: int, **fields: Any) -> None:
    """The forward and backward pass alone, with single kernel launches and replayed as a CUDA graph."""
    torch.manual_seed(0)
    model = create_model(name, img_size=160, **fields).to(CUDA).train()
    config: Any = model.config
    volume = torch.randn(batch, config.in_chans, *config.img_size, device=CUDA)
    noise = torch.rand(batch, config.tokens, device=CUDA)

    def run() -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(volume, RATIO, noise, return_pred=False).loss
        loss.backward()

    eager = milliseconds(run)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    log(f"  {name} B={batch} {fields or ''}: launched {eager:.2f} ms, replayed {milliseconds(graph.replay):.2f} ms")


def program(log: Log, device: str, precision: str, data: Path, folder: Path, epochs: int) -> list[float]:
    """Losses of main_pretrain.py per epoch."""
    command = [
        sys.executable, "main_pretrain.py", "--model", "mae_3d_vim_small_patch8", "--input_size", "80", "--data",
        str(data), "--batch_size", "2", "--epochs", str(epochs), "--warmup_epochs", "1", "--lr", "1e-3",
        "--no_augment", "--num_workers", "0", "--drop_path", "0", "--device", device, "--precision",
        precision, "--picture_freq", "0", "--output_dir", str(folder), "--seed", "0",
    ]  # fmt: skip
    started = time.monotonic()
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=max(20, log.left), check=False)
    if process.returncode:
        log(f"  main_pretrain.py on {device} ended with {process.returncode}:\n{process.stderr[-2500:]}")
        return []
    rows = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    messages = [line for line in process.stderr.splitlines() if "backend" in line or "WARN" in line]
    log(f"  {device} {precision}: {time.monotonic() - started:.0f} s, {messages[:4]}")
    return [row["train_loss"] for row in rows]


def training_curves(log: Log, epochs: int = 10) -> None:
    """50 updates of main_pretrain.py, on the GPU in float32 and bfloat16, and on the CPU in float32."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volumes(folder / "data", 10, 80)
        curves = {}
        for device, precision in (("cuda", "fp32"), ("cuda", "bf16"), ("cpu", "fp32")):
            run = folder / f"{device}-{precision}"
            curves[f"{device} {precision}"] = program(log, device, precision, folder / "data", run, epochs)
        for title, losses in curves.items():
            log(f"  {title:10s} {' '.join(f'{x:.5f}' for x in losses)}")
        for title in ("cuda fp32", "cuda bf16"):
            pairs = list(zip(curves[title], curves["cpu fp32"]))
            if pairs:
                log(f"  {title} against the CPU: at most {max(abs(a / b - 1) for a, b in pairs):.1e} of the loss")
