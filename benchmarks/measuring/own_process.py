"""One function call in a fresh process: its peak memory is its own, and a call that is killed kills nothing else."""

import importlib
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Failed(RuntimeError):
    """The process ended without a result; the message says how."""


def call_isolated(function: Callable[..., Any], **arguments: Any) -> Any:
    """function(**arguments) in a new process. Arguments and result are JSON. Raises Failed where it gives no result."""
    words = [sys.executable, "-m", "benchmarks.measuring.own_process", function.__module__, function.__name__]
    done = subprocess.run(words, input=json.dumps(arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        killed = "killed, out of memory perhaps" if done.returncode == -9 else f"exit code {done.returncode}"
        raise Failed(f"{killed}: {last}")
    return json.loads(done.stdout.splitlines()[-1])


def peak_mib() -> float:
    """This process's highest resident memory so far, MiB.

    Linux's VmHWM, because getrusage's figure starts from that of the process which started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def available_gib() -> float:
    """Memory that a new process can use, GiB; infinite where the system does not tell."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(x.split()[1]) / 2**20 for x in lines if x.startswith("MemAvailable")), float("inf"))


if __name__ == "__main__":
    module, name = sys.argv[1:]
    result = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
