"""Failures of data loading: explained in plain messages, and survived once where a data-loading process was killed."""

import logging
import re
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch.utils.data._utils.signal_handling import _error_if_any_worker_fails

from util.data.folder import BadVolume
from util.distributed.world import World
from util.options.groups import TrainingProgram
from util.process.stopping import StopRequest
from util.run_folder import CHECKPOINTS

logger = logging.getLogger(__name__)
OptionsT = TypeVar("OptionsT", bound=TrainingProgram)
Work = Callable[[OptionsT, World, StopRequest], None]
SHARED_MEMORY = Path("/dev/shm")
GRACE_CHECKS = 10  # times 50 ms, within which the system reports that a process ended
_KILLED = re.compile(r"DataLoader worker \(pid\(?s?\)? [\d, ]+\) (is killed by signal: [^.]*|exited unexpectedly)")
_IN_WORKER = re.compile(rf"^(?:\S+\.)?{BadVolume.__name__}: ", re.MULTILINE)


class WorkerKilled(ValueError):
    """A data-loading process ended without an exception of its own; the message says what to look at."""


def with_one_restart(work: Work[OptionsT], options: OptionsT) -> Callable[[World], None]:
    """`work` on these options, with plain messages for failures of its data. Where a data-loading process is killed, a
    single-process run continues once, from its last checkpoint; several ranks end, and torchrun --max-restarts
    continues them.

    Both attempts get the same stop request, for `work` to enter: a request during the first holds for the second, and
    --max_minutes counts from the start of the first."""

    def attempt(world: World) -> None:
        stop, num_workers = StopRequest(options.run.max_minutes), options.data.num_workers
        try:
            with explained(num_workers):
                return work(options, world, stop)
        except WorkerKilled as error:
            if world.size > 1:
                raise
            logger.warning("%s\ncontinuing from the last checkpoint; the next time the run ends", error)
        with explained(num_workers):  # outside of the handler, which keeps the old model and loaders in memory
            return work(_continued(options), world, stop)

    return attempt


@contextmanager
def explained(num_workers: int) -> Iterator[None]:
    """Raise BadVolume without the traceback that a data-loading process puts around its message, and WorkerKilled for
    any error of the main process that follows from the end of such a process."""
    try:
        yield
    except BadVolume as error:
        message = _IN_WORKER.split(str(error))[-1].strip()
        raise BadVolume(f"{message}; or let others stand in for such subjects: --on_bad_volume skip") from error
    except (RuntimeError, OSError, EOFError) as error:  # the last two from a pipe whose other end is gone
        if (how := _death(error)) is None:
            raise
        traceback.clear_frames(error.__traceback__)  # they hold the model and the loaders of a run that is over
        raise WorkerKilled(
            f"a data-loading process {how}: most likely memory ran out ({_memory()}); "
            f"use fewer than --num_workers {num_workers}, or give {SHARED_MEMORY} more room (docker: --shm-size)"
        ) from error


def _death(error: BaseException) -> str | None:
    """How a data-loading process ended unexpectedly; None if `error` has another cause.

    PyTorch raises its own error when the system reports that a child process ended. That can be late and anywhere in
    the program, and happen twice, so this waits for it.
    """
    messages = [str(error.__cause__), str(error)]
    try:
        for _ in range(GRACE_CHECKS):
            _error_if_any_worker_fails()
            time.sleep(0.05)
    except RuntimeError as late:
        messages.insert(0, str(late))
    found = [match[1] for text in messages if (match := _KILLED.search(text))]
    return found[0] if found else None


def _continued(options: OptionsT) -> OptionsT:
    """The same run, continued; from the checkpoint that --resume names as long as the run has none of its own."""
    run = options.run
    named = run.resume is not None and not any(run.output_dir.rglob(CHECKPOINTS))
    return replace(options, run=replace(run, resume=run.resume if named else "auto", overwrite=False))


def _memory() -> str:
    """The free memory, as far as the system reports it."""
    known = []
    if SHARED_MEMORY.is_dir():
        usage = shutil.disk_usage(SHARED_MEMORY)
        known.append(f"{usage.free >> 20} of {usage.total >> 20} MiB of {SHARED_MEMORY}")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)):
        known.append(f"{int(found[1]) >> 10} MiB of memory")
    return f"free now: {', '.join(known)}" if known else "the free memory is not known"
