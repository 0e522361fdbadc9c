"""Find the files below a folder that may be images."""

import os
import re
from pathlib import Path

from util.data.raw.nifti_file import SUFFIX, UNREADABLE

SKIPPED_FOLDERS = ("__MACOSX",)  # and all that start with "."


def image_files(root: Path) -> list[Path]:
    """The files that have the name of an image we read, sorted.

    Links to folders are followed, each folder once. Hidden files and what macOS adds to archives are left out. Raises
    ValueError if `root` is not a folder.
    """
    return [path for path in all_files(root) if is_image(path)]


def unreadable_files(root: Path) -> list[Path]:
    """The files that have the name of an image in a format we do not read. An .hdr belongs to its .img."""
    files = all_files(root)
    pairs = {re.sub(r"\.img(\.gz)?$", ".hdr", str(path), flags=re.I).lower() for path in files if is_image(path)}
    return [
        path
        for path in files
        if re.search(rf"({UNREADABLE})$", path.name, re.I) and str(path).lower().removesuffix(".gz") not in pairs
    ]


def all_files(root: Path) -> list[Path]:
    """All files that are not hidden, sorted."""
    if not root.is_dir():
        raise ValueError(f"{root} is not a folder; give the folder that holds the studies")
    files: list[Path] = []
    seen: set[str] = set()
    waiting, links = [root], []
    while waiting or links:  # folders before links, so that a file below both has the path without a link
        folder = waiting.pop() if waiting else links.pop(0)
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if entry.name.startswith(".") or entry.name in SKIPPED_FOLDERS:
                continue
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(Path(entry.path))
            elif entry.is_file():
                files.append(Path(entry.path))
    return sorted(files)


def is_image(path: Path) -> bool:
    return re.search(rf"({SUFFIX})$", path.name, re.I) is not None


def stem(name: str) -> str:
    """The file's name without the suffix of an image."""
    return re.sub(rf"({SUFFIX})$", "", name, flags=re.I)
