"""Prepared volumes as a torch Dataset; opening it reads file headers only."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from util.data.folder import CONTRASTS, find_subjects, open_volume, read_header, segmentation_path, volume_path
from util.data.manifest import read_manifest
from util.data.normalize import Normalize, normalize_volume

Transform = Callable[[Tensor], Tensor]


class PreparedVolumes(Dataset[tuple[Tensor, int]]):
    """A prepared folder as items (float32 (C, Z, Y, X), label or -1).

    root: folder in the layout of util/data/folder.py, with or without manifest.csv.
    transform: receives and returns (C, Z, Y, X) in [0, 1], background 0, and acts before normalisation: gamma needs
        non-negative values, and the brain is measured where the transform put it.
    labels: class per subject; every subject used must be in it. Without labels every item has label -1.
    subjects: which ones to use (default all).
    ValueError names the file or subject at fault.
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
    ) -> None:
        self.root = Path(root)
        self.contrasts = _checked_contrasts(contrasts)
        if normalize not in get_args(Normalize):
            raise ValueError(f'normalize is "{normalize}"; choose one of {", ".join(get_args(Normalize))}')
        self.normalize: Normalize = normalize
        self.transform = transform
        present = find_subjects(self.root, self.contrasts)
        self._affines = _affines(self.root, present)
        self.subjects = present if subjects is None else _checked_subjects(subjects, present, self.root)
        self.size = self._common_size()
        self.labels = labels
        if labels is not None and (missing := [name for name in self.subjects if name not in labels]):
            raise ValueError(
                f'{len(missing)} of {len(self.subjects)} subjects have no label, the first is "{missing[0]}"; '
                "add a row for each to the label sheet (-1 if unknown) or leave them out"
            )

    def __len__(self) -> int:
        return len(self.subjects)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        subject = self.subjects[index]
        volume_CZYX = torch.from_numpy(self.raw(subject)).float() / 255
        if self.transform is not None:
            volume_CZYX = self.transform(volume_CZYX)
        return normalize_volume(volume_CZYX, self.normalize), self.label(subject)

    def subset(self, subjects: Sequence[str], *, transform: Transform | None = None) -> "PreparedVolumes":
        """The same volumes restricted to `subjects`, with a transform of its own (none unless given)."""
        return PreparedVolumes(
            self.root,
            contrasts=self.contrasts,
            normalize=self.normalize,
            transform=transform,
            labels=self.labels,
            subjects=_checked_subjects(subjects, self.subjects, self.root),
        )

    def stored(self) -> "StoredVolumes":
        """The same items as they lie on disk, neither transformed nor normalised."""
        return StoredVolumes(self)

    def label(self, subject: str) -> int:
        """Its class, or -1 where there are no labels."""
        return -1 if self.labels is None else int(self.labels[subject])

    def describe(self) -> dict[str, Any]:
        """What a run's config.json says of its data: root, normalize, contrasts."""
        return {"root": str(self.root.resolve()), "normalize": self.normalize, "contrasts": list(self.contrasts)}

    def raw(self, subject: str) -> np.ndarray:
        """The stored volume, uint8 (C, Z, Y, X)."""
        return np.stack([open_volume(volume_path(self.root, subject, contrast)) for contrast in self.contrasts])

    def segmentation(self, subject: str) -> np.ndarray | None:
        """The tumour labels, uint8 (Z, Y, X), or None if the subject has none."""
        path = segmentation_path(self.root, subject)
        return np.array(open_volume(path)) if path.exists() else None

    def affine(self, subject: str) -> np.ndarray:
        """(4, 4) from index (x, y, z) of the prepared volume to world mm; identity for a folder without manifest."""
        if subject not in self.subjects:
            raise ValueError(f'{self.root} has no subject "{subject}"')
        return self._affines[subject].copy()

    def _common_size(self) -> tuple[int, int, int]:
        """(Z, Y, X) shared by every volume of every subject."""
        first = volume_path(self.root, self.subjects[0], self.contrasts[0])
        size = read_header(first)
        for subject in self.subjects:
            for contrast in self.contrasts:
                path = volume_path(self.root, subject, contrast)
                if (other := read_header(path)) != size:
                    raise ValueError(f"{path} is {other} voxels but {first} is {size}; prepare both with one --size")
        return size


class StoredVolumes(Dataset[tuple[Tensor, int]]):
    """Items (uint8 (C, Z, Y, X), label or -1) of prepared volumes; see util/data/device_input.py."""

    def __init__(self, volumes: PreparedVolumes) -> None:
        self.volumes = volumes

    def __len__(self) -> int:
        return len(self.volumes)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        subject = self.volumes.subjects[index]
        return torch.from_numpy(self.volumes.raw(subject)), self.volumes.label(subject)


def _checked_contrasts(contrasts: Sequence[str]) -> tuple[str, ...]:
    unknown = [name for name in contrasts if name not in CONTRASTS]
    if unknown or not contrasts or len(set(contrasts)) != len(contrasts):
        raise ValueError(f"contrasts are {list(contrasts)}; choose some of {', '.join(CONTRASTS)}, each once")
    return tuple(contrasts)


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
                f'subject "{subject}" has files in {root} but no row in manifest.csv, so its place in space is '
                "unknown; run prepare_data.py again, or remove its files"
            )
    if lost := sorted(set(rows) - set(subjects)):
        raise ValueError(f'manifest.csv of {root} lists "{lost[0]}" but its files are missing; prepare it again')
    return {subject: rows[subject].prepared_affine for subject in subjects}
