"""Fuzzing with atheris (libFuzzer): the coverage of the readers' Python code guides what hypothesis draws.

atheris is optional: requirements-dev.txt installs it on platforms with wheels. It cannot stop without ending the
process, so each reader is fuzzed in a forked process.
"""

import gc
import importlib.util
import multiprocessing
import os
import random
import re
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType

from hypothesis import HealthCheck, given, settings

from tests.robustness.fuzz_inputs import File, Target, outcome

AVAILABLE = importlib.util.find_spec("atheris") is not None
INSTRUMENTED = ("util", "nibabel", "openpyxl", "safetensors", "configparser", "zipfile", "gzip")
SEEDS, SEED_BYTES = 64, 4096  # random inputs at the start, long enough for hypothesis to draw a file
HANG_S = 60
KINDS = ("read", "refused")
_CRASH = re.compile(r"=== Uncaught Python exception: ===\n(.*)")


def guided(target: Target, *, seconds: float, seed: int) -> tuple[Counter[str], list[str]]:
    """Counts of "read", "refused" and "crashed" within `seconds` of processor time, and descriptions of the crashes.

    libFuzzer stops at the first crash.
    """
    context = multiprocessing.get_context("fork")
    counts = context.Array("q", len(KINDS))
    with tempfile.TemporaryDirectory() as folder:
        log, corpus = Path(folder) / "log", Path(folder) / "corpus"
        corpus.mkdir()
        draw = random.Random(seed)
        for number in range(SEEDS):
            (corpus / str(number)).write_bytes(draw.randbytes(SEED_BYTES))
        process = context.Process(target=_fuzz, args=(target, seconds, seed, counts, corpus, log))
        process.start()
        process.join()
        output = log.read_text(errors="replace")
    outcomes = Counter(dict(zip(KINDS, counts)))
    if process.exitcode == 0:
        return outcomes, []
    crash = _CRASH.search(output)
    outcomes["crashed"] += 1
    return outcomes, [f"{target.name}, atheris, seed {seed}: {crash[1][:300] if crash else output[-300:]}"]


def _fuzz(target: Target, seconds: float, seed: int, counts: Sequence[int], corpus: Path, log: Path) -> None:
    """Run libFuzzer in this process. Exit with status 0 when the time is over."""
    import atheris

    handle = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    sys.stdout = sys.stderr = os.fdopen(handle, "w", buffering=1)
    for function in gc.get_objects():
        if isinstance(function, FunctionType) and str(function.__module__).split(".")[0] in INSTRUMENTED:
            atheris.instrument_func(function)
    os.chdir(corpus.parent)  # libFuzzer writes crashing inputs to the working folder
    deadline = time.process_time() + seconds

    @settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(target.files)
    def attempt(file: File) -> None:
        counts[KINDS.index(outcome(target, file))] += 1

    def one_input(data: bytes) -> None:
        if time.process_time() > deadline:
            os._exit(0)
        attempt.hypothesis.fuzz_one_input(data)

    # The limit of the address space is inherited. The limit of libFuzzer would include the memory of torch.
    options = [f"-seed={seed + 1}", f"-timeout={HANG_S}", "-rss_limit_mb=0", "-len_control=0", f"-max_len={SEED_BYTES}"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one_input)
    atheris.Fuzz()


def children_seconds() -> float:
    """Processor time of the forked processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
