"""The maps of a new patient, averaged over the folds of a run: NIfTI files in patient space, figures, the viewer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from util.data.folder import PHANTOM
from util.data.prepare.study import Prepared
from util.inference.ensemble import FoldEnsemble
from util.inference.open_run import is_phantom
from util.inference.study import Study
from vis.drawing.figures import map_figure
from vis.drawing.wording import CLASS_NAMES
from vis.export.nifti import write_nifti
from vis.export.patient_space import PatientSpace
from vis.export.viewer import write_viewer
from vis.maps.fold_mean import mean_maps
from vis.maps.path_integral import Completeness
from vis.maps.registry import map_kind
from vis.maps.token_grid import Upsampling, upsample


class PatientMaps(NamedTuple):
    """The maps of one patient and one run, as written."""

    files: Mapping[str, str] = {}
    """Name of the NIfTI file, by kind of map."""
    completeness: Mapping[str, Completeness] = {}
    """Completeness of the kinds that approximate an integral."""
    viewer: str | None = None
    """Name of the HTML file. None without maps."""
    pictures: Sequence[tuple[str, Figure]] = ()
    """(caption, figure)."""


def write_patient_maps(
    folder: Path,
    subject: str,
    prepared: Prepared,
    ensemble: FoldEnsemble,
    volume_BCZYX: Tensor,
    names: Sequence[str],
    *,
    target: int,
    upsampling: Upsampling = "nearest",
) -> PatientMaps:
    """Compute maps of the volume and write them to `folder`. Class-specific maps explain class `target`."""
    if not names:
        return PatientMaps()
    maps = mean_maps(ensemble.models.values(), volume_BCZYX, names, target)
    study, space = displayed_study(subject, prepared, ensemble, volume_BCZYX), PatientSpace.of_prepared(prepared)
    label_type, folds = ensemble.label_type, f"mean of {len(ensemble.models)} folds"
    class_name = CLASS_NAMES[label_type][target]
    files, pictures, notes = {}, [], {}
    for name, (map_zyx, completeness) in maps.items():
        map_ZYX = upsample(map_zyx.unsqueeze(0), study.volume_CZYX.shape[1:], upsampling)[0].numpy()
        path = folder / f"{subject}_{label_type}_map-{name}.nii.gz"
        write_nifti(path, space.to_patient(map_ZYX).transpose(2, 1, 0), space.affine)
        files[name] = path.name
        kind = map_kind(name)
        title = f"{kind.title}, for {class_name}" if kind.class_specific else kind.title
        caption = f"{label_type}: {title}, {folds}"
        if completeness is not None:
            completeness.warn(f"{subject}, {label_type}")
            notes[name] = f"{completeness}, worst fold" if len(ensemble.models) > 1 else str(completeness)
            caption += f"; {notes[name]}"
        pictures.append((caption, map_figure(study, map_ZYX, name, subtitle=caption)))
    viewer = folder / f"{subject}_{label_type}_viewer.html"
    values = {name: mean.values_zyx for name, mean in maps.items()}
    subtitle = f"{label_type}: predicted {class_name}; {folds}"
    write_viewer(viewer, study, prepared.affine, values, subtitle=subtitle, notes=notes)
    checked = {name: mean.completeness for name, mean in maps.items() if mean.completeness is not None}
    return PatientMaps(files, checked, viewer.name, pictures)


def displayed_study(subject: str, prepared: Prepared, ensemble: FoldEnsemble, volume_BCZYX: Tensor) -> Study:
    """The study for figures: the available contrasts, normalised as for the models."""
    present = [name for name in ensemble.contrasts if name in prepared.volumes]
    volume_CZYX = volume_BCZYX[0, [ensemble.contrasts.index(name) for name in present]].cpu().numpy()
    phantom = subject.startswith(PHANTOM) or is_phantom(ensemble.config, ensemble.data_root)
    return Study(subject, tuple(present), volume_CZYX, prepared.segmentation, oriented=True, phantom=phantom)
