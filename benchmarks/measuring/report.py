"""A results file: the figures, the machine and the command."""

import datetime
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from util.files.atomic import atomic_write
from util.runs import environment
from util.training.precision import instruction_set

RESULTS = Path(__file__).parents[1] / "results"


class _Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __str__(self) -> str:
        return "\n".join([_row(self.header), "|" + "---|" * len(self.header), *map(_row, self.rows)])


class Report:
    """A Markdown file that grows: results/<theme>_<instructions>_<hardware>_<date>.md."""

    def __init__(self, theme: str, title: str, command: str, folder: Path = RESULTS) -> None:
        self.folder, self.theme = folder, theme
        facts = environment()
        self.hardware = hardware_slug(facts["machine"])
        self.instructions = torch.backends.cpu.get_cpu_capability().lower()
        self.date = datetime.date.today().isoformat()
        versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("python", "torch"))
        self._parts: list[str | _Table] = [
            f"# {title}",
            "",
            f"- Command: `{command}`",
            f"- Machine: {facts['machine']}; PyTorch: {instruction_set()}; our kernels: {kernels_for()}",
            f"- {torch.get_num_threads()} threads, "
            + ", ".join(f"{name}={os.environ.get(name, 'unset')}" for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")),
            f"- {versions}; revision {facts['git']}; {datetime.datetime.now().isoformat(timespec='minutes')}",
            f"- {_load()} when it began",
        ]

    def path(self, suffix: str = ".md") -> Path:
        return self.folder / f"{self.theme}_{self.instructions}_{self.hardware}_{self.date}{suffix}"

    def section(self, title: str, text: str = "") -> None:
        self._parts += ["", f"## {title}", *(["", text] if text else [])]

    def text(self, text: str) -> None:
        self._parts += ["", text]

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """`rows` may grow later: they are read when the file is written."""
        self._parts += ["", _Table(header, rows)]

    def write(self) -> Path:
        """Write the report so far. Called after every case, so that an interrupted run keeps its figures."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path(), "w") as file:
            file.write("\n".join(map(str, self._parts)) + f"\n\n{_load()} when it ended\n")
        return self.path()


def hardware_slug(machine: str) -> str:
    """ "AMD EPYC, 2 CPU cores, Linux x86_64" -> "amd-epyc-2-cpu-cores"."""
    return re.sub(r"[^a-z0-9]+", "-", ", ".join(machine.split(", ")[:2]).lower()).strip("-")


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(f"{x:.3g}" if isinstance(x, float) else str(x) for x in cells) + " |"


def _load() -> str:
    return f"Load average {os.getloadavg()[0]:.1f}"


def kernels_for() -> str:
    """The instruction set that our own kernels are built for."""
    return os.environ.get("MAMBA_MAE_ISA") or "native"
