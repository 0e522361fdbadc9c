"""One function call in a new process, which has its own peak memory and can be killed without harm."""

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
    """The process ended without a result. The message says how."""


def call_isolated(function: Callable[..., Any], **arguments: Any) -> Any:
    """function(**arguments) in a new process. Arguments and result are JSON. Raises Failed if there is no result."""
    words = [sys.executable, "-m", "benchmarks.measuring.own_process", function.__module__, function.__name__]
    process = subprocess.run(words, input=json.dumps(arguments), cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        last = (process.stderr.strip().splitlines() or ["no message"])[-1]
        killed = "killed, perhaps out of memory" if process.returncode == -9 else f"exit code {process.returncode}"
        raise Failed(f"{killed}: {last}")
    return json.loads(process.stdout.splitlines()[-1])


def peak_mib() -> float:
    """This process's highest resident memory so far, MiB.

    On Linux this is VmHWM, because getrusage's figure starts from that of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


def available_gib() -> float:
    """Memory that a new process can use, GiB. Infinite if the system does not report it."""
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((int(x.split()[1]) / 2**20 for x in lines if x.startswith("MemAvailable")), float("inf"))


if __name__ == "__main__":
    module, name = sys.argv[1:]
    result = getattr(importlib.import_module(module), name)(**json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
