"""Files that end in their own checksum, so that a reader detects damage.

The last line of a sealed file, its seal, is "SHA-256 <digest of all bytes before>". Readers of zip files, such as
torch.load, search backwards for the archive's directory, so that the seal does not disturb them.
"""

import hashlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from util.files.atomic import atomic_write

MARK = b"\nSHA-256 "
SEAL_BYTES = len(MARK) + 64 + 1
BLOCK = 1 << 20


class HashingFile:
    """Forwards writes to a file and computes their digest. It has the methods that torch.save calls."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_sealed(path: Path, write: Callable[[HashingFile], object]) -> None:
    """Let `write(file)` write a temporary file beside `path`, append the seal, read the file back, and rename it to
    `path`.

    Raises OSError if the file cannot be written or reads back differently; the old file then stays.
    """
    with atomic_write(path, check=partial(_check_written, path)) as file:
        hashing = HashingFile(file)
        write(hashing)
        file.write(MARK + hashing.digest.hexdigest().encode() + b"\n")


def check_seal(path: Path) -> bool:
    """Whether the file has a seal: our files have one, published ones have none. ValueError if the seal does not
    match."""
    with path.open("rb") as file:
        matches = _seal_matches(file)
    if matches is False:
        raise ValueError(f"{path} is damaged: its checksum does not match its content")
    return matches is True


def _check_written(path: Path, temporary: Path) -> None:
    with temporary.open("rb") as file:
        if not _seal_matches(file):
            raise OSError(f"{path} reads back differently from what was written: check the disk")


def _seal_matches(file: IO[bytes]) -> bool | None:
    """Whether the seal matches the content; None if there is no seal."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SEAL_BYTES, 0))
    seal = file.read()
    if not seal.startswith(MARK):
        return None
    digest, remaining = hashlib.sha256(), size - SEAL_BYTES
    file.seek(0)
    while remaining:
        block = file.read(min(BLOCK, remaining))
        digest.update(block)
        remaining -= len(block)
    return seal == MARK + digest.hexdigest().encode() + b"\n"
