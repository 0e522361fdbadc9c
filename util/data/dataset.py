"""Prepared volumes as a torch Dataset. Opening it reads file headers only."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from util.data.folder import (
    CONTRASTS,
    PHANTOM,
    BadVolume,
    find_subjects,
    open_volume,
    read_header,
    read_volume,
    segmentation_path,
    volume_path,
)
from util.data.manifest import read_manifest
from util.data.normalize import Normalize, normalize_volume
from util.data.stand_ins import OnBadVolume, StandIns, candidates

logger = logging.getLogger(__name__)
Transform = Callable[[Tensor], Tensor]
Alteration = Callable[
    ["PreparedVolumes", str, np.ndarray], np.ndarray
]  # (volumes, subject, uint8 (C, Z, Y, X)) -> the altered volume


class PreparedVolumes(Dataset[tuple[Tensor, int]]):
    """The volumes of a prepared folder as items (float32 (C, Z, Y, X), label or -1).

    root: a folder in the layout of util/data/folder.py, with or without manifest.csv.
    transform: maps (C, Z, Y, X) in [0, 1] with background 0 to the same. It acts before normalisation: gamma needs
        non-negative values, and the brain's statistics are those of the transformed brain.
    labels: class of every subject that is used. Without labels every item has the label -1.
    subjects: the subjects to use (default: all).
    on_bad_volume: what happens if a volume is missing, damaged or of another size. "stop": BadVolume, on opening or on
        reading. "skip": another of these subjects, of the same class if there is one, stands in for the subject.
    Raises ValueError with the file or subject at fault.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        contrasts: Sequence[str] = CONTRASTS,
        normalize: Normalize = "zscore",
        transform: Transform | None = None,
        labels: Mapping[str, int] | None = None,
        subjects: Sequence[str] | None = None,
        on_bad_volume: OnBadVolume = "stop",
    ) -> None:
        self.root = Path(root)
        self.contrasts = _checked_contrasts(contrasts)
        if normalize not in get_args(Normalize):
            raise ValueError(f'normalize is "{normalize}"; choose one of {", ".join(get_args(Normalize))}')
        self.normalize: Normalize = normalize
        self.transform = transform
        if on_bad_volume not in get_args(OnBadVolume):
            raise ValueError(f'on_bad_volume is "{on_bad_volume}"; choose one of {", ".join(get_args(OnBadVolume))}')
        self.on_bad_volume: OnBadVolume = on_bad_volume
        present = find_subjects(self.root, self.contrasts, complete=on_bad_volume == "stop")
        if on_bad_volume == "skip":
            present = sorted({*present, *read_manifest(self.root)})
        self._affines = _affines(self.root, present)
        self.subjects = present if subjects is None else _checked_subjects(subjects, present, self.root)
        self.size = self._common_size()
        self.labels = _checked_labels(labels, self.subjects)
        self._alter: Alteration | None = None
        self._stand_ins = StandIns(len(self.subjects)) if on_bad_volume == "skip" else None

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        subject, stored_CZYX = self.usable_volume(index)
        volume_CZYX = torch.from_numpy(stored_CZYX).float() / 255
        if self.transform is not None:
            volume_CZYX = self.transform(volume_CZYX)
        return normalize_volume(volume_CZYX, self.normalize), self.label(subject)

    def subset(self, subjects: Sequence[str], *, transform: Transform | None = None) -> "PreparedVolumes":
        """The same volumes restricted to `subjects`, with the given transform or none.

        This is a view: no file is opened again, and `size` stays that of all volumes.
        """
        return self._view(subjects=_checked_subjects(subjects, self.subjects, self.root), transform=transform)

    def relabelled(self, labels: Mapping[str, int]) -> "PreparedVolumes":
        """The same volumes with other labels."""
        return self._view(labels=_checked_labels(labels, self.subjects))

    def altered(self, alter: Alteration) -> "PreparedVolumes":
        """The same volumes with changed values. `alter` computes them from the stored ones and must be
        deterministic."""
        return self._view(_alter=alter)

    def _view(self, **changed: Any) -> "PreparedVolumes":
        """A copy that shares all attributes but the changed ones. With "skip" it keeps its own record of stand-ins."""
        view = copy.copy(self)
        view.__dict__.update(changed)
        if self._stand_ins is not None:
            view._stand_ins = StandIns(len(view.subjects))
        return view

    def stored(self) -> "StoredVolumes":
        """The same items as stored: uint8, neither transformed nor normalised."""
        return StoredVolumes(self)

    def label(self, subject: str) -> int:
        """The subject's class, or -1 if there are no labels."""
        return -1 if self.labels is None else int(self.labels[subject])

    def facts(self) -> dict[str, Any]:
        """What a run's config.json records of its data.

        preparation: the settings that a new patient's scan is prepared with; None for a folder without manifest.
        phantom: whether `prepare_data.py phantom` simulated some of the subjects.
        """
        settings = next((row.settings for row in read_manifest(self.root).values()), None)
        return {
            "root": str(self.root.resolve()),
            "normalize": self.normalize,
            "contrasts": list(self.contrasts),
            "preparation": settings,
            "n_subjects": len(self.subjects),
            "phantom": any(subject.startswith(PHANTOM) for subject in self.subjects),
        }

    def stored_volume(self, subject: str) -> np.ndarray:
        """The stored volume, uint8 (C, Z, Y, X), changed by the function that `altered` was given."""
        paths = [volume_path(self.root, subject, contrast) for contrast in self.contrasts]
        stored_CZYX = np.stack([read_volume(path, self.size) for path in paths])
        if not stored_CZYX.any():
            raise BadVolume(f"{paths[0]} and the other contrasts are empty (all 0); prepare that subject again")
        return stored_CZYX if self._alter is None else self._alter(self, subject, stored_CZYX)

    def usable_volume(self, index: int) -> tuple[str, np.ndarray]:
        """The subject of an item, or its stand-in, and the stored volume, uint8 (C, Z, Y, X).

        Raises BadVolume if the volume cannot be used and, with on_bad_volume="skip", no other one can.
        """
        subject = self.subjects[index]
        try:
            return subject, self.stored_volume(subject)
        except BadVolume as error:
            if self._stand_ins is None:
                raise
            problem = error
        for other in candidates(index, [self.label(name) for name in self.subjects]):
            try:
                stored_CZYX = self.stored_volume(self.subjects[other])
            except BadVolume:
                continue
            if self._stand_ins.add(index, other):
                logger.warning('%s. Subject "%s" stands in for "%s"', problem, self.subjects[other], subject)
            return self.subjects[other], stored_CZYX
        raise BadVolume(f"{problem}; no other subject of {self.root} can be used in its place")

    def stand_ins(self) -> list[tuple[str, str]]:
        """(subject whose volume could not be used, the subject that stood in for it) so far, in all processes that read
        these volumes."""
        pairs = [] if self._stand_ins is None else self._stand_ins.items()
        return [(self.subjects[item], self.subjects[other]) for item, other in pairs]

    def segmentation(self, subject: str) -> np.ndarray | None:
        """The tumour labels, uint8 (Z, Y, X), or None if the subject has none."""
        path = segmentation_path(self.root, subject)
        return np.array(open_volume(path)) if path.exists() else None

    def affine(self, subject: str) -> np.ndarray:
        """(4, 4) from the index (x, y, z) of the prepared volume to world mm; the identity without a manifest."""
        if subject not in self.subjects:
            raise ValueError(f'{self.root} has no subject "{subject}"')
        return self._affines[subject].copy()

    def _common_size(self) -> tuple[int, int, int]:
        """The size (Z, Y, X) of every volume of every subject; with "skip" of most volumes that can be opened."""
        if self.on_bad_volume == "skip":
            return self._most_frequent_size()
        first = volume_path(self.root, self.subjects[0], self.contrasts[0])
        size = read_header(first)
        for subject in self.subjects:
            for contrast in self.contrasts:
                path = volume_path(self.root, subject, contrast)
                if (other := read_header(path)) != size:
                    raise BadVolume(f"{path} is {other} voxels but {first} is {size}; prepare both with one --size")
        return size

    def _most_frequent_size(self) -> tuple[int, int, int]:
        sizes: Counter[tuple[int, int, int]] = Counter()
        for path in (volume_path(self.root, name, contrast) for name in self.subjects for contrast in self.contrasts):
            with suppress(BadVolume):
                sizes[read_header(path)] += 1
        if not sizes:
            raise BadVolume(f"none of the {len(self.subjects)} subjects of {self.root} can be read; prepare them again")
        return sizes.most_common(1)[0][0]


class StoredVolumes(Dataset[tuple[Tensor, int]]):
    """Prepared volumes as items (uint8 (C, Z, Y, X), label or -1), for util/data/device_input.py."""

    def __init__(self, volumes: PreparedVolumes) -> None:
        self.volumes = volumes

    def __len__(self) -> int:
        return len(self.volumes)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        subject, stored_CZYX = self.volumes.usable_volume(index)
        return torch.from_numpy(stored_CZYX), self.volumes.label(subject)

    @property
    def subjects(self) -> list[str]:
        return self.volumes.subjects

    def stand_ins(self) -> list[tuple[str, str]]:
        """The same as PreparedVolumes.stand_ins."""
        return self.volumes.stand_ins()


def _checked_contrasts(contrasts: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in contrasts if name not in CONTRASTS]
    if unknown or not contrasts or len(set(contrasts)) != len(contrasts):
        raise ValueError(f"contrasts are {list(contrasts)}; choose some of {', '.join(CONTRASTS)}, each once")
    return tuple(contrasts)


def _checked_labels(labels: Mapping[str, int] | None, subjects: Sequence[str]) -> Mapping[str, int] | None:
    if labels is not None and (missing := [name for name in subjects if name not in labels]):
        raise ValueError(
            f'{len(missing)} of {len(subjects)} subjects have no label, the first is "{missing[0]}"; '
            "add a row for each to the label sheet (-1 if unknown) or leave them out"
        )
    return labels


def _checked_subjects(wanted: Sequence[str], known: Sequence[str], root: Path) -> list[str]:
    ordered, known_names = sorted(wanted), set(known)
    if not ordered:
        raise ValueError(f"no subject of {root} is left to use")
    for name, following in zip(ordered, ordered[1:] + [None], strict=True):
        if name == following:
            raise ValueError(f'subject "{name}" is listed twice')
        if name not in known_names:
            raise ValueError(f'subject "{name}" is not among the {len(known)} subjects used from {root}')
    return ordered


def _affines(root: Path, subjects: Sequence[str]) -> dict[str, np.ndarray]:
    if not (root / "manifest.csv").exists():
        return {subject: np.eye(4) for subject in subjects}
    rows = read_manifest(root)
    for subject in subjects:
        if subject not in rows:
            raise ValueError(
                f'subject "{subject}" has files in {root} but no row in manifest.csv, so its position in space is '
                "unknown; run prepare_data.py again, or remove its files"
            )
    if lost := sorted(set(rows) - set(subjects)):
        raise ValueError(f'manifest.csv of {root} lists "{lost[0]}" but its files are missing; prepare it again')
    return {subject: rows[subject].prepared_affine for subject in subjects}
