"""Prepare a whole cohort in parallel. A subject that fails does not stop the others, and prepared ones are skipped."""

import hashlib
import io
import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from util.data.folder import open_volume, segmentation_path, volume_path
from util.data.manifest import ManifestRow, read_manifest, write_manifest
from util.data.prepare.quality_control import qc_picture
from util.data.prepare.study import Prepared, Settings, prepare_study
from util.data.prepare.summary import log_summary, write_warnings
from util.data.processes import run_tasks
from util.data.raw.layouts import RawStudy
from util.data.raw.orientation import ASSUMED
from util.data.subject_names import name_problem
from util.files.atomic import atomic_write

logger = logging.getLogger(__name__)
MANIFEST_EVERY_S = 5.0  # a killed run repeats at most the last seconds; writing after each of 1,000 subjects is slow


def prepare_cohort(
    studies: Sequence[RawStudy], destination: Path, settings: Settings, *, workers: int = 1, overwrite: bool = False
) -> dict[str, str]:
    """Prepare every study into `destination`. Returns the reason for every subject that failed, {} if none did.

    Without `overwrite`, subjects whose files and sources agree with the manifest are skipped. Raises ValueError if
    subjects that would stay in `destination` were prepared with other settings.
    """
    rows = read_manifest(destination)
    replaced = {study.subject for study in studies} if overwrite else set()
    _check_settings((row for subject, row in rows.items() if subject not in replaced), settings, destination)
    todo = [study for study in studies if overwrite or not _is_done(study, rows, destination)]
    if len(todo) < len(studies):
        logger.info("%d of %d subjects are already prepared in %s", len(studies) - len(todo), len(studies), destination)
    failures: dict[str, str] = {}
    written = time.monotonic()
    for study in todo:
        if not overwrite and study.problem is None and study.subject in rows:
            study.problem = _name_taken(study, rows[study.subject], destination)
    tasks = [partial(prepare_one, study, destination, settings) for study in todo]
    try:
        with logging_redirect_tqdm():
            for position, outcome in tqdm(run_tasks(tasks, workers), total=len(tasks), unit="subject", disable=None):
                subject = todo[position].subject
                if isinstance(outcome, ManifestRow):
                    rows[subject] = outcome
                else:
                    failures[subject] = str(outcome)
                    logger.warning("%s: %s", subject, outcome)
                    if overwrite and (stale := rows.pop(subject, None)):  # its size may differ
                        _remove(stale, destination)
                if time.monotonic() - written > MANIFEST_EVERY_S:
                    write_manifest(destination, rows)
                    written = time.monotonic()
    finally:
        if rows:
            write_manifest(destination, rows)
            write_warnings(destination, rows)
    log_summary(studies, {subject: row for subject, row in rows.items() if subject not in failures}, destination)
    return failures


def prepare_one(study: RawStudy, destination: Path, settings: Settings) -> ManifestRow:
    """Prepare one study and write its files: all of them, or none if the study is faulty."""
    if problem := name_problem(study.subject):
        raise ValueError(problem)
    prepared = prepare_study(study, settings)
    files = {
        volume_path(destination, study.subject, contrast): _npy(volume) for contrast, volume in prepared.volumes.items()
    }
    if prepared.segmentation is not None:
        files[segmentation_path(destination, study.subject)] = _npy(prepared.segmentation)
    spacing = np.linalg.norm(prepared.affine[:3, 0])
    picture = qc_picture(
        study.subject, prepared.volumes, prepared.segmentation, [f"{spacing:.2f} mm", *prepared.warnings]
    )
    for path, content in {**files, destination / "qc" / f"{study.subject}.png": picture}.items():
        with atomic_write(path) as file:
            file.write(content)
    if prepared.segmentation is None:  # remove the one of an earlier preparation
        segmentation_path(destination, study.subject).unlink(missing_ok=True)
    checksum = {
        path.relative_to(destination).as_posix(): hashlib.sha256(content).hexdigest() for path, content in files.items()
    }
    return _manifest_row(study, prepared, settings, checksum)


def _remove(row: ManifestRow, destination: Path) -> None:
    for name in row.checksum:
        (destination / name).unlink(missing_ok=True)


def _check_settings(rows: Iterable[ManifestRow], settings: Settings, destination: Path) -> None:
    for row in rows:
        if row.settings != settings.as_json():
            changed = ", ".join(
                f"--{name} was {row.settings.get(name)}, is {value}"
                for name, value in settings.as_json().items()
                if row.settings.get(name) != value
            )
            raise ValueError(
                f'{destination} holds "{row.subject}", prepared with other settings ({changed}); '
                "use --overwrite to prepare all subjects again, or another folder"
            )


def _is_done(study: RawStudy, rows: dict[str, ManifestRow], destination: Path) -> bool:
    """Whether the study is prepared already: from the same sources, into complete files that are newer than they."""
    row = rows.get(study.subject)
    if row is None or study.problem is not None or row.sources != _sources(study):
        return False
    assumed = {warning.rsplit(ASSUMED, 1)[1] for warning in row.warnings if ASSUMED in warning}
    if assumed - {study.assumed_orientation}:  # prepared with another --assume_orientation
        return False
    try:
        newest_source = max(path.stat().st_mtime for path in study.files.values())
        for name in row.checksum:
            open_volume(destination / name)
            if (destination / name).stat().st_mtime < newest_source:
                return False
    except (ValueError, OSError):
        return False
    return True


def _name_taken(study: RawStudy, row: ManifestRow, destination: Path) -> str | None:
    """The error if another patient of the same name is in `destination`, prepared from other files that still exist."""
    for role, path in _sources(study).items():
        earlier = row.sources.get(role, path)
        if earlier != path and Path(earlier).exists():
            return (
                f"{destination} holds a subject of this name prepared from {earlier}, not {path}; rename one of "
                "them, use another folder, or --overwrite to replace it"
            )
    return None


def _sources(study: RawStudy) -> dict[str, str]:
    """The raw file of each contrast, as the manifest records it."""
    return {role: str(path.resolve()) for role, path in sorted(study.files.items())}


def _manifest_row(study: RawStudy, prepared: Prepared, settings: Settings, checksum: dict[str, str]) -> ManifestRow:
    return ManifestRow(
        subject=study.subject,
        sources=_sources(study),
        original_shape=list(prepared.source.stored_shape),
        original_affine=prepared.source.stored_affine.tolist(),
        orientation=prepared.source.orientation,
        crop=[list(side) for side in prepared.crop],
        affine=prepared.affine.tolist(),
        window={contrast: list(window) for contrast, window in prepared.window.items()},
        contrasts=list(prepared.volumes),
        checksum=checksum,
        warnings=prepared.warnings,
        settings=settings.as_json(),
    )


def _npy(volume: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, volume, allow_pickle=False)
    return buffer.getvalue()
