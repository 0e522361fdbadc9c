"""Compiles ops/cpu/csrc once per machine, to a shared library in the user's cache.

The sources include no PyTorch header: a build takes seconds, needs only a C++17 compiler, and stays valid when torch is
updated. The library's name holds a hash of the sources, the compiler and this CPU's instruction set. On another CPU the
name differs, so a copied cache is never used there and the library is built again. ops/cpu/cached.py checks that a
library is whole and this user's own before it is loaded.

MAMBA_MAE_ISA=x86-64-v2, x86-64-v3 or x86-64-v4 builds and uses kernels for an older CPU than this one, as
`make test ISA=x86-64-v3` does. Without it, or with "native", they are built for this CPU.
"""

import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from ops.cpu import cached

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
}  # the levels of the x86-64 psABI, and the CPU flags each needs, in Linux' names


class BuildError(RuntimeError):
    """There is no compiler, or it failed. The message names it and quotes the end of its output."""


def library_path() -> Path:
    """The compiled library. Builds it if this machine has none yet, or a damaged one; two processes never build at the
    same time. A good library is taken without a compiler, or when the compiler fails.

    Raises ValueError if MAMBA_MAE_ISA names no instruction set, or one that this CPU lacks, and BuildError if the build
    fails.
    """
    instructions = _instruction_sets()
    try:
        folder = cached.private_folder(cache_folder())
        try:
            return _current(folder, instructions)
        except BuildError as error:
            usable = cached.good_libraries(folder, _purpose(instructions))
            if not usable:
                raise
            logger.warning("using the CPU kernels compiled before, %s: %s", usable[0], error)
            return usable[0]
    except OSError as error:
        raise BuildError(f"cannot write {cache_folder()} (set MAMBA_MAE_CACHE to another folder): {error}") from error


def _current(folder: Path, instructions: list[list[str]]) -> Path:
    """The library of this compiler."""
    compiler = _compiler()
    target = folder / f"ops-{fingerprint(compiler, instructions)}.so"
    if cached.is_good(target):
        return target
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with cached.lock(target.with_suffix(".lock")):
        if not cached.is_good(target):
            if target.exists():
                logger.warning("%s is damaged, or another user's: compiling it again", target)
            _build(compiler, instructions, target)
    return target


def _compiler() -> list[str]:
    """$CXX, which may hold options or a launcher ("ccache g++"), or the first compiler found."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in (named, ["c++"], ["g++"], ["clang++"]):
        if command and (program := shutil.which(command[0])):
            return [program, *command[1:]]
        if command and command is named:
            logger.warning('CXX="%s": there is no program %s, another compiler is used', " ".join(named), command[0])
    raise BuildError("no C++ compiler found (install g++ or set CXX)")


def cache_folder() -> Path:
    """$MAMBA_MAE_CACHE, else mamba_mae in $XDG_CACHE_HOME or ~/.cache."""
    if named := os.environ.get("MAMBA_MAE_CACHE"):
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mamba_mae"
    except RuntimeError as error:  # a user without a home, as in some containers
        raise BuildError(f"no place for the compiled kernels (set MAMBA_MAE_CACHE to a folder): {error}") from error


def fingerprint(compiler: list[str], instructions: list[list[str]]) -> str:
    """A hash of the sources, the compiler and its version, the flags, and the CPU's instruction set."""
    return _hash(_purpose(instructions), " ".join(compiler), _run([*compiler, "--version"]).stdout)


def _purpose(instructions: list[list[str]]) -> str:
    """A hash of all that `fingerprint` depends on but the compiler."""
    sources = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(SOURCES.iterdir())]
    return _hash(*sources, repr((FLAGS, *instructions)), _cpu_flags())


def _hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _cpu_flags() -> str:
    """What -march=native depends on: model and flags on Linux, elsewhere the names of the machine and the processor."""
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
    """The flags of a level that this CPU lacks. Empty if the system does not list flags."""
    flags = {flag for line in _cpu_flags().splitlines() if line.startswith("flags") for flag in line.split()}
    return [needed for needed in LEVELS[level] if flags and needed not in flags]


def _build(compiler: list[str], instruction_sets: list[list[str]], target: Path) -> None:
    started = time.perf_counter()
    error = ""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder) / target.name
        for instructions in instruction_sets:
            for threads in (["-fopenmp"], []):
                units = [str(SOURCES / unit) for unit in UNITS]
                command = [*compiler, *FLAGS, *instructions, *threads, *units, "-o", str(built)]
                process = _run(command)
                if process.returncode == 0:
                    cached.store(built, target, _purpose(instruction_sets))
                    logger.info("compiled the CPU kernels in %.0f s: %s", time.perf_counter() - started, target)
                    return
                error = error or process.stderr.strip()[-500:]
    raise BuildError(f"{' '.join(compiler)} failed: {error}")


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"{command[0]} took more than {TIMEOUT_S} s") from error
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be started: {error}") from error
