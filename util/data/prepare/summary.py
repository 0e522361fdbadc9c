"""What a preparation says at its end: who has a tumour mask, and the warnings by kind. Also warnings.csv."""

import csv
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from util.data.folder import CONTRASTS
from util.data.manifest import ManifestRow
from util.data.raw.finding import stem
from util.data.raw.layouts import RawStudy
from util.data.raw.roles import LOOKS_LIKE_MASK
from util.files.atomic import atomic_write

logger = logging.getLogger(__name__)
WARNINGS = "warnings.csv"
SHOWN = 3  # subjects or files that a line names


def write_warnings(destination: Path, rows: Mapping[str, ManifestRow]) -> None:
    """Replace DESTINATION/warnings.csv, one row per warning. Without warnings there is no file."""
    path = destination / WARNINGS
    lines = [(subject, warning) for subject in sorted(rows) for warning in rows[subject].warnings]
    if not lines:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["subject", "warning"])
        writer.writerows(lines)


def log_summary(studies: Sequence[RawStudy], rows: Mapping[str, ManifestRow], destination: Path) -> None:
    """Log how many of the prepared studies have a tumour mask, what looks like one, and their warnings by kind."""
    prepared = [study for study in studies if study.subject in rows]
    if not prepared:
        return
    masked = sum("seg" in rows[study.subject].sources for study in prepared)
    logger.info("%d of %d subjects have a mask of the tumour", masked, len(prepared))
    if lookalikes := unused_masks(prepared):
        logger.warning(
            "%d files look like masks and are not used: %s; if one is the tumour's, say so by --seg NAME",
            len(lookalikes), shown([path.name for path in lookalikes]),
        )  # fmt: skip
    kinds = by_kind({study.subject: rows[study.subject].warnings for study in prepared})
    for example, subjects in kinds:
        logger.warning("warning for %d of %d (%s): %s", len(subjects), len(prepared), shown(subjects), example)
    if kinds:
        logger.warning("all warnings: %s", destination / WARNINGS)


def unused_masks(studies: Sequence[RawStudy]) -> list[Path]:
    """Images that are not used although they have a mask's name, of the studies without a mask of the tumour first."""
    ordered = sorted(studies, key=lambda study: "seg" in study.files)
    return [
        path
        for study in ordered
        for path in study.unused
        if LOOKS_LIKE_MASK.search(stem(path.name).removeprefix(study.subject))
    ]


def by_kind(warnings: Mapping[str, Sequence[str]]) -> list[tuple[str, list[str]]]:
    """The first text and the subjects of each kind of warning, the most frequent first.

    Warnings that differ in numbers or in the contrast are of one kind.
    """
    kinds: dict[str, tuple[str, dict[str, None]]] = {}
    for subject in sorted(warnings):
        for warning in warnings[subject]:
            kind = re.sub(r"\d+([.,]\d+)*", "N", re.sub(rf"\b({'|'.join(CONTRASTS)})\b", "CONTRAST", warning))
            kinds.setdefault(kind, (warning, {}))[1][subject] = None
    return sorted(((text, list(subjects)) for text, subjects in kinds.values()), key=lambda kind: -len(kind[1]))


def shown(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
