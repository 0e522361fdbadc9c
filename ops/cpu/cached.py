"""Compiled libraries in a cache folder: whole, and written by this user, or not used.

To load a library is to run it, and a truncated one ends the process by a signal. So each library has a record beside it
(NAME.json) with its size, its SHA-256 and its purpose, and only a library that fits its record is taken. The folder and
the library must belong to this user or to root, and nobody else may write to them. In a folder that others can write
to, each user has a folder of their own.
"""

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def private_folder(folder: Path) -> Path:
    """`folder`, or this user's folder in it where other users can write to it. It may not exist yet.

    Raises OSError if that folder is not this user's either.
    """
    if os.name == "nt":
        raise ImportError("Windows has no file owners as POSIX has: the kernels are not supported there")
    if not folder.exists() or _is_ours(folder):
        return folder
    own = folder / f"user_{os.geteuid()}"
    if own.is_symlink() or (own.exists() and not _is_ours(own)):
        raise PermissionError(f"{own} belongs to another user, or others can write to it")
    return own


def _is_ours(path: Path) -> bool:
    status = path.stat()
    return status.st_uid in (0, os.geteuid()) and not status.st_mode & OTHERS_WRITE


def is_good(library: Path) -> bool:
    """Whether the library is this user's, or root's, and fits its record."""
    record = _record(library)
    try:
        status = library.lstat()
        return (
            stat.S_ISREG(status.st_mode)
            and _is_ours(library)
            and status.st_size == record.get("size")
            and hashlib.sha256(library.read_bytes()).hexdigest() == record.get("sha256")
        )
    except OSError:
        return False


def good_libraries(folder: Path, purpose: str) -> list[Path]:
    """Good libraries of this purpose, whatever compiler made them, the newest first."""
    libraries = [path for path in folder.glob("*.so") if _record(path).get("purpose") == purpose and is_good(path)]
    return sorted(libraries, key=lambda path: path.stat().st_mtime, reverse=True)


def store(built: Path, library: Path, purpose: str) -> None:
    """Move a compiled library to its place, with a record. After a crash in between it is not good, and built again."""
    content = built.read_bytes()
    built.chmod(0o700)
    entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "purpose": purpose}
    written = built.with_suffix(".json")
    written.write_text(json.dumps(entry) + "\n", encoding="utf-8")
    for path, target in ((built, library), (written, library.with_suffix(".json"))):
        _flush(path)
        path.replace(target)  # atomic: no process sees half a file
    _flush(library.parent)


def _flush(path: Path) -> None:
    """Wait until the disk has it."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _record(library: Path) -> dict[str, Any]:
    """What is written about the library; nothing if that is missing or damaged."""
    try:
        entry = json.loads(library.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return entry if isinstance(entry, dict) else {}


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Wait until no other process builds. The operating system frees the lock of a process that dies."""
    import fcntl  # Windows has none: there the kernels are not supported, and ops falls back to plain PyTorch

    number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)  # not through a link to another file
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
