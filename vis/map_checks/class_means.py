"""Mean maps of the held-out subjects, per class."""

import numpy as np
from matplotlib.figure import Figure

from util.inference.study import Study
from vis.drawing.mosaics import class_means_figure
from vis.map_checks.subject import SubjectResult
from vis.maps.registry import map_kind
from vis.maps.token_grid import upsample


class ClassMeans:
    """Running sums of maps and volumes per class. Only the sums are kept in memory.

    A class-specific map that explains class 0 is negated, so that all of them explain class 1: the log-odds of two
    classes differ in their sign only. Subjects of unknown label belong to no class.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self._volumes: dict[int, np.ndarray] = {}
        self._contrasts: tuple[str, ...] = ()
        self._oriented = True

    def add(self, result: SubjectResult) -> None:
        """Add the maps and the volume of a subject."""
        if result.label < 0:
            return
        study, label = result.study, result.label
        self.counts[label] = self.counts.get(label, 0) + 1
        self._contrasts, self._oriented = study.contrasts, self._oriented and study.oriented
        self._volumes[label] = self._volumes.get(label, 0) + study.grey(study.volume_CZYX)
        for name, map_zyx in result.maps.items():
            sign = -1 if map_kind(name).class_specific and result.target == 0 else 1
            map_ZYX = sign * upsample(map_zyx.unsqueeze(0), study.volume_CZYX.shape[1:])[0].cpu().numpy()
            self._maps[name, label] = self._maps.get((name, label), 0) + map_ZYX

    def has(self, name: str) -> bool:
        """Whether any subject of known label has this map."""
        return any(known == name for known, _ in self._maps)

    def mean(self, name: str, label: int) -> np.ndarray:
        """(Z, Y, X) mean map of a class."""
        return self._maps[name, label] / self.counts[label]

    def figure(self, name: str, class_names: tuple[str, ...], *, phantom: bool) -> Figure:
        """The mean maps of one kind, a row per class that has subjects."""
        rows = {}
        for label in sorted(self.counts):
            volume = (self._volumes[label] / self.counts[label]).astype(np.float32)
            study = Study("", self._contrasts, volume, None, self._oriented, phantom)
            rows[f"{class_names[label]}\n(n = {self.counts[label]})"] = (study, self.mean(name, label))
        unit = f", log-odds of {class_names[1]}" if map_kind(name).class_specific else ""
        return class_means_figure(rows, name, subtitle=f"Held-out subjects, each by the model of its fold{unit}")
