"""Write a cohort of phantoms to disk. Another call simulates only phantoms that are missing."""

import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from util.data.phantom.study import Layout, make_phantom, study_files, write_egd_labels, write_phantom
from util.data.phantom.tumour import check_marker_strength
from util.data.processes import run_tasks
from util.files.atomic import atomic_write

logger = logging.getLogger(__name__)


def write_phantoms(
    destination: Path,
    layouts: Sequence[Layout],
    *,
    subjects: int,
    seed: int,
    spacing: float = 1.0,
    marker_strength: float = 1.0,
    workers: int = 1,
    overwrite: bool = False,
) -> None:
    """Write `subjects` studies per layout to DESTINATION/brats and DESTINATION/egd, and EGD's label sheet.

    Raises ValueError if a folder holds phantoms of another seed, spacing or marker strength, unless `overwrite`.
    """
    if subjects < 1:
        raise ValueError(f"--subjects is {subjects}; give 1 or more")
    if seed < 0:
        raise ValueError(f"--seed is {seed}; give 0 or more")
    check_marker_strength(marker_strength)
    settings = {"seed": seed, "spacing": spacing, "marker_strength": marker_strength}
    for layout in layouts:
        _check_same_settings(destination / layout, settings, overwrite)
    tasks = []  # of all layouts, because starting the processes takes longer than simulating ten phantoms
    for layout in layouts:
        folder = destination / layout
        todo = [
            index
            for index in range(subjects)
            if overwrite or not all(path.exists() for path in study_files(layout, index, folder).values())
        ]
        logger.info("%s: simulating %d of %d phantoms", folder, len(todo), subjects)
        tasks += [partial(_write_one, layout, index, folder, seed, spacing, marker_strength) for index in todo]
    for _, outcome in tqdm(run_tasks(tasks, workers), total=len(tasks), unit="phantom", disable=None):
        if isinstance(outcome, Exception):
            raise outcome
    if "egd" in layouts:
        write_egd_labels(destination / "egd", subjects, seed=seed)


def _write_one(layout: Layout, index: int, folder: Path, seed: int, spacing: float, marker_strength: float) -> None:
    torch.set_num_threads(1)  # the processes already use every core
    phantom = make_phantom(layout, index, seed=seed, spacing=spacing, marker_strength=marker_strength)
    write_phantom(phantom, layout, index, folder)


def _check_same_settings(folder: Path, settings: dict[str, float], overwrite: bool) -> None:
    """Record the settings in phantoms.json. Raises ValueError if it records other ones, unless `overwrite`."""
    record = folder / "phantoms.json"
    if record.exists() and not overwrite:
        former = {"marker_strength": 1.0, **json.loads(record.read_text(encoding="utf-8"))}  # older files lack it
        if former != settings:
            raise ValueError(f"{folder} holds phantoms of {former}, not {settings}; use --overwrite or another DST")
    with atomic_write(record, "w") as file:
        json.dump(settings, file)
