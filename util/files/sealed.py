"""Files that end in a checksum of themselves, so that a damaged one is recognised.

The last line of a sealed file is "SHA-256 <digest of all bytes before>". Readers of zip files, torch.load among them,
look for their directory from the end backwards and pass over it.
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
    """Passes writes on to a file and remembers the digest of what went through; what torch.save needs of a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def write_sealed(path: Path, write: Callable[[HashingFile], object]) -> None:
    """Have `write(file)` fill a file beside `path`, seal it, read it back, and only then let it replace `path`.

    Raises OSError where it cannot be written or what is read back differs; the old file is then still there.
    """
    with atomic_write(path, check=partial(_check_written, path)) as file:
        hashing = HashingFile(file)
        write(hashing)
        file.write(MARK + hashing.digest.hexdigest().encode() + b"\n")


def check_seal(path: Path) -> bool:
    """Whether the file is sealed, as ours are and published ones are not. ValueError where content and seal differ."""
    with path.open("rb") as file:
        found = _seal_of(file)
    if found is False:
        raise ValueError(f"{path} is damaged: its checksum does not match its content")
    return found is True


def _check_written(path: Path, temporary: Path) -> None:
    with temporary.open("rb") as file:
        if not _seal_of(file):
            raise OSError(f"{path} reads back differently from what was written: check the disk")


def _seal_of(file: IO[bytes]) -> bool | None:
    """True for a seal that matches, False for one that does not, None where there is none."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SEAL_BYTES, 0))
    seal = file.read()
    if not seal.startswith(MARK):
        return None
    digest, left = hashlib.sha256(), size - SEAL_BYTES
    file.seek(0)
    while left:
        block = file.read(min(BLOCK, left))
        digest.update(block)
        left -= len(block)
    return seal == MARK + digest.hexdigest().encode() + b"\n"
