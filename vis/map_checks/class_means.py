"""Mean maps of a cohort, class by class."""

import numpy as np
from matplotlib.figure import Figure

from util.inference.study import Study
from vis.drawing.mosaics import group_figure
from vis.map_checks.subject import Found
from vis.maps.latent import upsample
from vis.maps.registry import method


class Groups:
    """Sums of maps and volumes per class, one subject at a time; only sums are kept.

    A class-specific map is turned to speak for class 1 whatever class it explained: of two classes, the log-odds of one
    are those of the other with the opposite sign. Subjects without a recorded label belong to no class.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._maps: dict[tuple[str, int], np.ndarray] = {}
        self._volumes: dict[int, np.ndarray] = {}
        self._contrasts: tuple[str, ...] = ()
        self._oriented = True

    def add(self, found: Found) -> None:
        """Take a subject's maps and volume in."""
        if found.label < 0:
            return
        study = found.study
        size = (study.volume_CZYX.shape[1], study.volume_CZYX.shape[2], study.volume_CZYX.shape[3])
        self.counts[found.label] = self.counts.get(found.label, 0) + 1
        self._contrasts, self._oriented = study.contrasts, self._oriented and study.oriented
        self._volumes[found.label] = self._volumes.get(found.label, 0) + study.grey(study.volume_CZYX)
        for name, map_zyx in found.maps.items():
            sign = -1 if method(name).class_specific and found.target == 0 else 1
            map_ZYX = sign * upsample(map_zyx.unsqueeze(0), size)[0].cpu().numpy()
            self._maps[name, found.label] = self._maps.get((name, found.label), 0) + map_ZYX

    def has(self, name: str) -> bool:
        return any(known == name for known, _ in self._maps)

    def mean(self, name: str, label: int) -> np.ndarray:
        """(Z, Y, X) mean map of a class."""
        return self._maps[name, label] / self.counts[label]

    def figure(self, name: str, class_names: tuple[str, ...], *, phantom: bool) -> Figure:
        """A row per class that has subjects."""
        rows = {}
        for label in sorted(self.counts):
            volume = (self._volumes[label] / self.counts[label]).astype(np.float32)
            study = Study("", self._contrasts, volume, None, self._oriented, phantom)
            rows[f"{class_names[label]}\n(n = {self.counts[label]})"] = (study, self.mean(name, label))
        towards = f", log-odds of {class_names[1]}" if method(name).class_specific else ""
        return group_figure(rows, name, subtitle=f"Held-out subjects, each by its own fold's model{towards}")
