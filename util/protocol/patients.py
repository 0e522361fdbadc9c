"""Subjects that are one patient although nobody said so: the same volumes twice, or time points by their names."""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from util.data.manifest import read_manifest

logger = logging.getLogger(__name__)
MOST_TIME_POINTS = 12  # more subjects of one stem are numbered through, not followed up
SHOWN = 3
# BraTS-GLI-00001-000 and -001, UPENN-GBM-00001_11 and _21, sub-01_ses-2: a stem that ends in the patient's number, then
# a short number; or a word that says what the number counts.
_NUMBERED = re.compile(r"(?P<stem>.*\d)[-_]\d{1,3}")
_NAMED = re.compile(r"(?P<stem>.+?)[-_](?:ses(?:sion)?|visit|time(?:point)?|tp|scan)[-_]?\w*\d\w*", re.IGNORECASE)


def patients_of(subjects: Iterable[str], root: Path) -> dict[str, str]:
    """The patient of every subject that shares one with another subject: equal checksums of a volume in the manifest
    of `root`, or names that differ by a time point only. Each patient has the name of its first subject."""
    known = sorted(subjects)
    first_of = {subject: subject for subject in known}
    together = {subject: [subject] for subject in known}  # by the first of them
    for group in (*_equal_volumes(known, root), *_time_points(known)):
        first, *others = sorted({first_of[member] for member in group})
        for other in others:
            joining = together.pop(other)
            together[first] += joining
            first_of.update(dict.fromkeys(joining, first))
    return {subject: first for first, members in together.items() if len(members) > 1 for subject in sorted(members)}


def log_patients(patients: dict[str, str]) -> None:
    """Say which subjects stay together although no --group_by asked for it."""
    together = defaultdict(list)
    for subject, patient in patients.items():
        together[patient].append(subject)
    shown = "; ".join(", ".join(members[:SHOWN]) for members in list(together.values())[:SHOWN])
    logger.warning(
        "%d subjects look like %d patients (equal volumes, or names of time points): each patient stays in one fold, "
        "for instance %s. Say whose subject it is with --group_by",
        len(patients), len(together), shown,
    )  # fmt: skip


def _equal_volumes(subjects: list[str], root: Path) -> list[list[str]]:
    rows, owners = read_manifest(root), defaultdict(set)
    for subject in subjects:
        if subject in rows:
            for name, checksum in rows[subject].checksum.items():
                if not name.startswith("seg_mask/"):  # empty ones are equal
                    owners[checksum].add(subject)
    return [sorted(members) for members in owners.values() if len(members) > 1]


def _time_points(subjects: list[str]) -> list[list[str]]:
    stems = defaultdict(list)
    for subject in subjects:
        if match := _NAMED.fullmatch(subject) or _NUMBERED.fullmatch(subject):
            stems[match["stem"]].append(subject)
    return [members for members in stems.values() if 1 < len(members) <= MOST_TIME_POINTS]
