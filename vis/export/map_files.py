"""The files of a subject's maps: arrays, NIfTI images, figures and the viewer."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from util.files.atomic import atomic_write
from util.hub.download import is_hub_name
from util.inference.study import Study
from vis.drawing.figures import map_figure, peak
from vis.drawing.mosaics import mosaic_figure
from vis.drawing.style import save_png
from vis.export.nifti import write_nifti
from vis.export.patient_space import PatientSpace, patient_spaces
from vis.export.viewer import write_viewer
from vis.maps.registry import map_kind
from vis.maps.token_grid import Upsampling, upsample

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MapWriter:
    """Writes the maps of subjects to FOLDER/SUBJECT."""

    folder: Path
    upsampling: Upsampling = "nearest"
    spaces: Mapping[str, PatientSpace] | None = None
    """Patient space by subject. A subject without one gets files on the prepared grid only."""
    mosaic: bool = False
    """Also draw slices through the whole brain for each map."""
    viewer: bool = False
    """Also write an HTML viewer for each subject."""

    def write(
        self,
        study: Study,
        affine: np.ndarray,
        maps: Mapping[str, Tensor],
        *,
        subtitle: str,
        notes: Mapping[str, str] | None = None,
    ) -> None:
        """Write all maps (z, y, x) of a subject.

        affine: (4, 4) from prepared index (x, y, z) to world mm. notes: a remark on a map, by name.
        """
        notes = notes or {}
        for name, map_zyx in maps.items():
            full_subtitle = f"{subtitle} · {notes[name]}" if name in notes else subtitle
            self._write_map(study, affine, name, map_zyx, full_subtitle)
        if self.viewer:
            path = subject_file(self.folder, study.subject, "viewer.html")
            write_viewer(path, study, affine, maps, subtitle=subtitle, notes=notes)

    def _write_map(self, study: Study, affine: np.ndarray, name: str, map_zyx: Tensor, subtitle: str) -> None:
        """Write SUBJECT_map-NAME as .npy (token grid), .nii.gz (prepared voxels), _patient.nii.gz (original grid) and
        .png (planes through the centre of the tumour and through the peak of the map).
        """
        map_ZYX = upsample(map_zyx.unsqueeze(0), study.volume_CZYX.shape[1:], self.upsampling)[0].cpu().numpy()
        stem = f"map-{name}"
        write_array(subject_file(self.folder, study.subject, f"{stem}.npy"), map_zyx)
        write_nifti(subject_file(self.folder, study.subject, f"{stem}.nii.gz"), map_ZYX, affine)
        if space := (self.spaces or {}).get(study.subject):
            volume_ZYX = space.to_patient(map_ZYX).transpose(2, 1, 0)
            write_nifti(subject_file(self.folder, study.subject, f"{stem}_patient.nii.gz"), volume_ZYX, space.affine)
        centre = "brain centre" if study.segmentation_ZYX is None else "tumour centre"
        centres = {centre: study.focus, "map peak": peak(study, map_ZYX, map_kind(name).signed)}
        figure = map_figure(study, map_ZYX, name, subtitle=subtitle, centres=centres)
        save_png(subject_file(self.folder, study.subject, f"{stem}.png"), figure)
        if self.mosaic:
            mosaic = mosaic_figure(study, map_ZYX, name, subtitle=subtitle)
            save_png(subject_file(self.folder, study.subject, f"{stem}_mosaic.png"), mosaic)


def requested_spaces(root: Path, space: str) -> dict[str, PatientSpace]:
    """The patient space of every subject, for --space patient. Empty for --space prepared, and without a manifest."""
    if space == "prepared":
        return {}
    spaces = patient_spaces(root)
    if not spaces:
        logger.warning("%s has no manifest.csv: maps are written on the prepared grid only", root)
    return spaces


def output_folder(out: Path | None, run: Path, *subfolders: str) -> Path:
    """The folder given by --out, or a folder inside the run. ValueError for a run on the hub without --out."""
    if out is None and is_hub_name(run):
        raise ValueError(f"--run {run} is not a local folder: name an output folder with --out")
    return run.joinpath(*subfolders) if out is None else out


def subject_file(folder: Path, subject: str, name: str) -> Path:
    """FOLDER/SUBJECT/SUBJECT_NAME."""
    return folder / subject / f"{subject}_{name}"


def write_array(path: Path, tensor: Tensor) -> None:
    """Write a tensor as float32 .npy, atomically."""
    with atomic_write(path) as file:
        np.save(file, tensor.detach().to("cpu", torch.float32).numpy(), allow_pickle=False)
