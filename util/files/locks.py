"""A lock on a folder, so that one training at a time writes to it."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from util.distributed.world import World

logger = logging.getLogger(__name__)
LOCK = ".lock"


@contextlib.contextmanager
def locked(folder: Path, name: str, remedy: str, wait_s: float = 0) -> Iterator[None]:
    """Lock `folder` against other processes, on every machine that shares it. name: the folder's name in messages.

    The operating system releases the lock when the process ends, however it ends. The lock is a POSIX record lock,
    which child processes do not inherit: data-loading processes outlive a killed parent by seconds. Raises ValueError,
    with the holder and `remedy`, if another process still holds the lock after wait_s seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK
    with path.open("a+", encoding="utf-8") as file:
        if not _acquire(file.fileno(), wait_s):
            file.seek(0)
            raise ValueError(f"{name} ({folder}) is in use by {_holder(file.read())}: {remedy}")
        file.truncate(0)
        file.write(json.dumps({"process": os.getpid(), "machine": platform.node(), "since": time.strftime("%c")}))
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.lockf(file.fileno(), fcntl.LOCK_UN)


@contextlib.contextmanager
def locked_by_main(world: World, folder: Path, name: str, remedy: str) -> Iterator[None]:
    """`locked` on the main rank, which locks for all ranks. If it fails, every rank raises the error."""
    with contextlib.ExitStack() as stack:
        world.on_main_rank(lambda: stack.enter_context(locked(folder, name, remedy)))
        yield


def _acquire(handle: int, wait_s: float) -> bool:
    """Whether the lock was acquired. On a file system without locks: True, with a warning."""
    end = time.monotonic() + wait_s
    while True:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                logger.warning("this file system has no locks: make sure that no other job writes to the same folder")
                return True
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['process']} on {holder['machine']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
