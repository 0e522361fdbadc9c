"""The measurement of one training step. bench_step and bench_scaling run it in a process of its own."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.measuring import peers
from benchmarks.measuring.own_process import peak_mib
from benchmarks.measuring.step_floor import Rates, Work, floor
from benchmarks.measuring.timing import Timing, measure
from models import MaskedAutoencoder3D, create_model
from util.process.allocator import keep_memory
from util.training.optim import PrecisionName, autocast

Mixer = Literal["ours", "mambapy", "reference"]
CPU = torch.device("cpu")
PARTS: tuple[str, ...] = ("gemm", "scan", "conv", "norm", "attention", "rest")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mkldnn_linear", "_addmm_activation")


@dataclass(frozen=True)
class Case:
    """A step to measure. mixer "reference" is the sequential specification of the scan, "mambapy" that package's block.

    fields: changed ModelConfig fields. keeps_memory: whether the C library's allocator keeps memory, as our trainings
    set it, or has its default settings, which a peer's users have. needs_gib: with less free memory, the case is
    skipped.
    """

    model: str
    precision: PrecisionName = "fp32"
    mixer: Mixer = "ours"
    threads: int | None = None
    batch: int = 1
    mask_ratio: float = 0.75
    fields: dict[str, Any] = field(default_factory=dict)
    keeps_memory: bool = True
    repeats: int = 12
    warmup: int = 3
    budget: float = 10.0
    needs_gib: float = 0.0

    def __post_init__(self) -> None:
        if self.mixer not in get_args(Mixer):
            raise ValueError(f'mixer is "{self.mixer}"; choose one of {", ".join(get_args(Mixer))}')
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(f"precision {self.precision} is not measured on CPUs; choose fp32 or bf16")

    @property
    def title(self) -> str:
        changed = ", ".join(f"{name}={value}" for name, value in self.fields.items())
        by = {"ours": "", "mambapy": "mambapy blocks", "reference": "sequential reference"}[self.mixer]
        allocator = "" if self.keeps_memory else "default allocator"
        return ", ".join(part for part in (self.model, by, allocator, changed) if part)

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        backend = {"scan_backend": "reference"} if self.mixer == "reference" else {}
        model = create_model(self.model, **{"img_size": 160, **backend, **self.fields})
        if self.mixer == "mambapy":
            peers.use_mambapy(model)
        return model.train()

    def work(self, model: nn.Module) -> Work:
        is_mae = isinstance(model, MaskedAutoencoder3D)
        return Work(model.config, self.mask_ratio if is_mae else None, self.batch)  # pyright: ignore[reportArgumentType]


def make_step(model: nn.Module, case: Case) -> Callable[[], torch.Tensor]:
    """A function that clears gradients, runs a forward and backward pass on random volumes, and returns the loss."""
    config: Any = model.config
    volume = torch.randn(case.batch, config.in_chans, *config.img_size)
    noise = torch.rand(case.batch, config.tokens)
    label = torch.zeros(case.batch, dtype=torch.long)

    def run() -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        with autocast(CPU, case.precision):
            if isinstance(model, MaskedAutoencoder3D):
                loss = model(volume, case.mask_ratio, noise, return_pred=False).loss
            else:
                loss = F.cross_entropy(model(volume), label)
        loss.backward()
        return loss.detach()

    return run


def part_of(operation: str) -> str:
    """The part of a step to which a profiled operation belongs."""
    name = operation.split("::")[-1]
    if "mamba_mae" in operation or "ChunkedScan" in name:  # also autograd's wrappers of our operators
        parts = {"conv": "conv", "norm": "norm", "patch": "rest"}
        return next((part for mark, part in parts.items() if mark in name), "scan")  # the fused mixer counts as scan
    if name in PRODUCTS:
        return "gemm"
    return "attention" if "attention" in name else "rest"


def split(run: Callable[[], torch.Tensor]) -> tuple[dict[str, float], float]:
    """Seconds of one call by part (`PARTS`), and the loss."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
        loss = run()
    parts = dict.fromkeys(PARTS, 0.0)
    for event in profiler.key_averages():
        parts[part_of(event.key)] += event.self_cpu_time_total / 1e6
    return parts, float(loss)


def measure_step(with_parts: bool = True, **case_fields: Any) -> dict[str, Any]:
    """seconds and peak_mib of a `Case` as JSON, for a new process.

    with_parts: also loss, parts, and the floors at the rates that the machine has after each repetition.
    """
    case = Case(**case_fields)
    if case.keeps_memory:
        keep_memory()
    if case.threads:
        torch.set_num_threads(case.threads)
    model = case.build()
    run, work = make_step(model, case), case.work(model)
    result: dict[str, Any] = {"floors": []}

    def between() -> None:
        result.setdefault("peak_mib", peak_mib())  # before the products of the floor take memory
        if with_parts:
            result["floors"].append(floor(work, case.precision, Rates.measured()).total)

    timing = measure(run, repeats=case.repeats, warmup=case.warmup, budget=case.budget, between=between)
    result["seconds"] = timing.seconds
    if with_parts:
        result["parts"], result["loss"] = split(run)
    return result


def step_arguments(case: Case) -> dict[str, Any]:
    return asdict(case)


def timing_of(result: dict[str, Any]) -> Timing:
    return Timing(result["seconds"])
