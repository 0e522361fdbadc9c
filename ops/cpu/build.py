"""Compiles ops/cpu/csrc once per machine: a shared library in the user's cache, named after everything it depends on.

The sources include no PyTorch header, so that a build takes seconds, needs nothing but a C++17 compiler, and outlives
an update of torch. The name holds a hash of the sources, the compiler and this CPU's instruction set: a cache that
moves to another CPU is not found there, and the library is built again for it.

MAMBA_MAE_ISA=x86-64-v2, x86-64-v3 or x86-64-v4 builds and uses kernels for a lesser CPU than this one, as
`make test ISA=x86-64-v3` does; without it, or with "native", they are built for this one.
"""

import contextlib
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

logger = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "csrc"
UNITS = ("scan_forward.cpp", "scan_backward.cpp", "conv.cpp", "add_norm.cpp", "patches.cpp", "resample.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fno-math-errno")
TIMEOUT_S = 300
NATIVE = "native"
_V2 = ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
LEVELS = {
    "x86-64-v2": _V2,
    "x86-64-v3": _V3,
    "x86-64-v4": _V4,
}  # the psABI's levels, with Linux' names of what they need


class BuildError(RuntimeError):
    """No compiler, or it failed; the message says which and what it printed last."""


def library_path() -> Path:
    """The compiled library, built now if this machine has none yet. Two processes never build at the same time.

    ValueError where MAMBA_MAE_ISA names no instruction set, or one that this CPU lacks.
    """
    instructions = _instruction_sets()
    compiler = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise BuildError("no C++ compiler found (install g++ or set CXX)")
    target = cache_folder() / f"ops-{fingerprint(compiler, instructions)}.so"
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target.with_suffix(".lock")):
            if not target.exists():
                _build(compiler, instructions, target)
    except OSError as error:
        raise BuildError(f"cannot write {target.parent} (set MAMBA_MAE_CACHE to another folder): {error}") from error
    return target


def cache_folder() -> Path:
    """$MAMBA_MAE_CACHE, else mamba_mae in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("MAMBA_MAE_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mamba_mae"
    except RuntimeError as error:  # a user without a home, as in some containers
        raise BuildError(f"no place for the compiled kernels (set MAMBA_MAE_CACHE to a folder): {error}") from error


def fingerprint(compiler: str, instructions: list[list[str]]) -> str:
    """A hash of the sources, the compiler and its version, the flags, and the CPU's instruction set."""
    parts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    parts += [
        compiler.encode(),
        _run([compiler, "--version"]).stdout.encode(),
        repr((FLAGS, *instructions)).encode(),
        _cpu_flags().encode(),
    ]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cpu_flags() -> str:
    """What -march=native would see: model and flags on Linux, otherwise the machine's and the processor's names."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    wanted = ("flags", "features", "cpu part", "cpu implementer", "vendor_id", "cpu family", "model\t")
    return "\n".join(sorted({line for line in lines if line.lower().startswith(wanted)}))


def _instruction_sets() -> list[list[str]]:
    """Flag lists in the order in which they are tried."""
    named, is_x86 = os.environ.get("MAMBA_MAE_ISA") or NATIVE, platform.machine() in ("x86_64", "AMD64")
    if named == NATIVE:
        return [["-march=native" if is_x86 else "-mcpu=native"], []]
    if named not in LEVELS:
        raise ValueError(
            f'MAMBA_MAE_ISA="{named}" is no instruction set: set {", ".join(LEVELS)} or {NATIVE}, or unset it'
        )
    if lacking := _lacking(named) if is_x86 else ["an x86 processor"]:
        raise ValueError(f"MAMBA_MAE_ISA={named} cannot run here, without {', '.join(lacking)}: unset it")
    return [[f"-march={named}"]]


def _lacking(level: str) -> list[str]:
    """What this CPU lacks for a level, as far as the system says."""
    flags = {flag for line in _cpu_flags().splitlines() if line.startswith("flags") for flag in line.split()}
    return [needed for needed in LEVELS[level] if flags and needed not in flags]


def _build(compiler: str, instruction_sets: list[list[str]], target: Path) -> None:
    started = time.perf_counter()
    error = ""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        for instructions in instruction_sets:
            for threads in (["-fopenmp"], []):
                units = [str(SOURCES / unit) for unit in UNITS]
                command = [compiler, *FLAGS, *instructions, *threads, *units, "-o", str(made)]
                done = _run(command)
                if done.returncode == 0:
                    made.replace(target)  # whole or not at all
                    logger.info("compiled the CPU kernels in %.0f s: %s", time.perf_counter() - started, target)
                    return
                error = error or done.stderr.strip()[-500:]
    raise BuildError(f"{compiler} failed: {error}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {TIMEOUT_S} s") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Wait for any other process that builds; the operating system frees the lock of one that died."""
    import fcntl  # not on Windows, where a build is not supported and ends in the fallback

    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
