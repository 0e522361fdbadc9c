"""Milliseconds, kernels and memory of a function on a GPU."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def milliseconds(run: Callable[[], object], repeats: int = 20, warmup: int = 3, budget: float = 2.0) -> float:
    """Median of up to `repeats` calls, timed by events on the device. No call starts after `budget` seconds."""
    for _ in range(warmup):
        run()
    torch.cuda.synchronize()
    times, started = [], time.monotonic()
    while not times or (len(times) < repeats and time.monotonic() - started < budget):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def kernels(run: Callable[[], object], calls: int = 3) -> dict[str, tuple[float, float]]:
    """Kernel name -> (milliseconds, launches) on the device per call, the longest first."""
    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    by_name: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for event in profiler.events() or ():
        if event.device_type == torch.autograd.DeviceType.CUDA:
            by_name[event.name][0] += event.time_range.elapsed_us() / 1e3 / calls
            by_name[event.name][1] += 1 / calls
    ordered = sorted(by_name.items(), key=lambda item: -item[1][0])
    return {name: (total, launches) for name, (total, launches) in ordered}


def listing(by_name: dict[str, tuple[float, float]], most: int = 25) -> list[str]:
    """One line for each of the longest kernels, and one for all kernels together."""
    lines = [f"    {total:9.3f} ms {launches:7.1f} x  {name[:90]}" for name, (total, launches) in by_name.items()][
        :most
    ]
    total, launches = (sum(column) for column in zip(*by_name.values())) if by_name else (0.0, 0.0)
    return [*lines, f"    {total:9.3f} ms {launches:7.1f} launches together"]


def peak_gib(run: Callable[[], object]) -> float:
    """Peak memory of tensors during a call, GiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30
