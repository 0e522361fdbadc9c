"""One new patient's NIfTI files to probabilities, maps and a report, by all folds of one or two fine-tuning runs.

python predict.py PATIENT_FOLDER --run runs/idh --run runs/1p19q --output_dir predictions
python predict.py --t1 a.nii.gz --t2 b.nii.gz --t1ce c.nii.gz --flair d.nii.gz --run runs/idh
python predict.py FOLDER_A FOLDER_B FOLDER_C --run runs/idh        also writes predictions.csv

Research use only, not a medical device. Per patient, in OUTPUT_DIR/PATIENT: report.html, report.json, a viewer, and
maps as NIfTI on the grid of the patient's own files. Skull-stripped, co-registered contrasts are expected, as in
training.
"""

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from util.cli import RUN_FROM, Parser, positive, run, setup_logging
from util.data.folder import CONTRASTS, PHANTOM
from util.data.prepare.study import Prepared, Settings, prepare_study
from util.data.raw.layouts import Study as Files
from util.data.raw.new_patient import find_patient, missing_contrasts, patient_from_files
from util.distributed.world import choose_device
from util.inference.ensemble import FoldEnsemble, Opinion, check_together, open_ensemble
from util.inference.open_run import is_phantom
from util.inference.study import Study
from util.patient.novelty import SMALLEST, Novelty, Reference, judge
from util.patient.reference_features import references
from util.runs import environment
from vis.drawing.figures import map_figure
from vis.drawing.wording import CLASS_NAMES
from vis.export.nifti import write_nifti
from vis.export.patient_space import PatientSpace
from vis.export.viewer import write_viewer
from vis.maps.fold_mean import MeanMap, mean_maps
from vis.maps.latent import MAPS, Upsampling, upsample
from vis.maps.registry import CLASS_SPECIFIC, method
from vis.reporting.patient import patient_facts, run_facts, write_patient_report, write_table

logger = logging.getLogger(__name__)
# A principal component's sign and direction differ from fold to fold: no mean over folds.
AVERAGED_MAPS = (*(name for name in MAPS if not MAPS[name].signed), *CLASS_SPECIFIC)
Compared = tuple[list[Reference | None], str]  # references by fold, or why there are none


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="one folder per patient, any layout")
    for contrast in CONTRASTS:
        parser.add_argument(
            f"--{contrast}", type=Path, metavar="FILE", help=f"the {contrast} scan, instead of a folder"
        )
    parser.add_argument("--run", action="append", required=True, type=Path, help=f"{RUN_FROM}; again for the other")
    parser.add_argument("--output_dir", type=Path, default=Path("predictions"), help="default: %(default)s")
    parser.add_argument(
        "--map",
        nargs="*",
        choices=AVERAGED_MAPS,
        default=["max"],
        help="mean over folds; default: max. "
        "gradient, influence, integrated and occlusion (slow) speak for the called class",
    )
    parser.add_argument("--upsample", choices=get_args(Upsampling), default="nearest", help="of maps; default: nearest")
    parser.add_argument(
        "--reference",
        type=int,
        default=40,
        metavar="N",
        help="held-out subjects of each fold to compare the scan with, computed once per run; 0 for no comparison; "
        "default: %(default)s",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    parser.add_argument("--threads", type=positive, help="CPU threads of torch; default as torch chooses")
    return parser.parse_args(argv)


class Stopwatch:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began


def choose_patients(args: argparse.Namespace) -> dict[str, Files | ValueError]:
    """By name; a folder that holds no patient is its problem, and no other's."""
    files = {contrast: getattr(args, contrast) for contrast in CONTRASTS}
    given = [f"--{contrast}" for contrast, path in files.items() if path is not None]
    if bool(given) == bool(args.folders):
        both = f"folders and {', '.join(given)} are both given" if given else "neither a folder nor a file is given"
        raise ValueError(f"{both}: give folders of patients, or one patient's files by --t1, --t2, --t1ce, --flair")
    if given:
        study = patient_from_files(files)
        return {study.subject: study}
    found: dict[str, Files | ValueError] = {}
    for folder in args.folders:
        name = folder.resolve().name
        if name in found:
            raise ValueError(f"two folders are named {name}, so one report would replace the other; rename one")
        try:
            found[name] = find_patient(folder)
        except ValueError as error:
            found[name] = error
    return found


def compare(ensemble: FoldEnsemble, missing: Sequence[str], limit: int) -> Compared:
    """What a scan is compared with, or why it cannot be: a prediction is worth having where the data are elsewhere."""
    if limit == 0:
        return [], "--reference 0"
    try:
        return references(ensemble, missing, limit), ""
    except ValueError as error:
        logger.warning("%s: no comparison with the scans of training: %s", ensemble.folder, error)
        return [], str(error)


def novelty_of(compared: Compared, opinion: Opinion) -> tuple[Novelty | None, str]:
    found, problem = compared
    if problem:
        return None, problem
    novelty = judge(found, list(opinion.features.values()))
    return novelty, "" if novelty else "too few held-out subjects"


def picture_study(subject: str, prepared: Prepared, ensemble: FoldEnsemble, volume_BCZYX: Tensor) -> Study:
    """What a figure shows: the contrasts that are there, as the model reads them."""
    present = [name for name in ensemble.contrasts if name in prepared.volumes]
    volume_CZYX = volume_BCZYX[0, [ensemble.contrasts.index(name) for name in present]].cpu().numpy()
    phantom = subject.startswith(PHANTOM) or is_phantom(ensemble.config, ensemble.data_root)
    return Study(subject, tuple(present), volume_CZYX, prepared.segmentation, oriented=True, phantom=phantom)


def write_maps(
    folder: Path,
    study: Study,
    prepared: Prepared,
    ensemble: FoldEnsemble,
    maps: dict[str, MeanMap],
    called: int,
    how: Upsampling,
) -> tuple[dict[str, str], str | None, list]:
    """NIfTI on the patient's grid by kind of map, the viewer of all of them where there are any, and pictures."""
    x, y, z = prepared.source.stored_shape[:3]
    space = PatientSpace((x, y, z), prepared.source.stored_affine, tuple(prepared.crop), prepared.affine)
    files, pictures, notes = {}, [], {}
    for name, (map_zyx, completeness) in maps.items():
        map_ZYX = upsample(map_zyx.unsqueeze(0), prepared.volumes[study.contrasts[0]].shape, how)[0].numpy()  # pyright: ignore[reportArgumentType]
        path = folder / f"{study.subject}_{ensemble.label_type}_map-{name}.nii.gz"
        write_nifti(path, space.to_patient(map_ZYX).transpose(2, 1, 0), space.affine)
        files[name] = path.name
        shown = method(name)
        title = (
            f"{shown.title}, for {CLASS_NAMES[ensemble.label_type][called]}" if shown.class_specific else shown.title
        )
        caption = f"{ensemble.label_type}: {title}, mean of {len(ensemble.models)} folds"
        if completeness is not None:
            completeness.warn(f"{study.subject}, {ensemble.label_type}")
            notes[name] = f"{completeness} in the worst fold" if len(ensemble.models) > 1 else str(completeness)
            caption += f"; {notes[name]}"
        pictures.append((caption, map_figure(study, map_ZYX, name, subtitle=caption)))
    if not maps:
        return files, None, pictures
    path = folder / f"{study.subject}_{ensemble.label_type}_viewer.html"
    subtitle = (
        f"{ensemble.label_type}: {CLASS_NAMES[ensemble.label_type][called]}; mean of {len(ensemble.models)} folds"
    )
    shown_maps = {name: found.values_zyx for name, found in maps.items()}
    write_viewer(path, study, prepared.affine, shown_maps, subtitle=subtitle, notes=notes)
    return files, path.name, pictures


def predict_patient(
    args: argparse.Namespace,
    study: Files,
    ensembles: Sequence[FoldEnsemble],
    known: dict[tuple[Path, tuple[str, ...]], Compared],
    loading: dict[str, float],
) -> dict[str, Any]:
    """Everything of one patient, written to OUTPUT_DIR/PATIENT; the facts of its report.

    known: comparisons that earlier patients needed. ValueError names what is wrong with the patient's files.
    """
    watch, folder = Stopwatch(), args.output_dir / study.subject
    missing = {ensemble.folder: missing_contrasts(study, ensemble.contrasts) for ensemble in ensembles}
    for ensemble in ensembles:
        ensemble.check_contrasts(missing[ensemble.folder])
    present = tuple(contrast for contrast in CONTRASTS if contrast in study.files)
    prepared: dict[Settings, Prepared] = {}
    runs, pictures = [], []
    for ensemble in ensembles:
        lacking = tuple(missing[ensemble.folder])
        with watch.stage("read and prepare"):
            if ensemble.settings not in prepared:
                prepared[ensemble.settings] = prepare_study(study, ensemble.settings, present)
            ready = prepared[ensemble.settings]
            volume_BCZYX = ensemble.model_input(ready)
        with watch.stage("predict"):
            opinion = ensemble.opinion(volume_BCZYX)
        with watch.stage("compare with held-out subjects"):
            if (ensemble.folder, lacking) not in known:
                known[ensemble.folder, lacking] = compare(ensemble, lacking, args.reference)
            novelty, not_judged = novelty_of(known[ensemble.folder, lacking], opinion)
        with watch.stage("maps"):
            shown = picture_study(study.subject, ready, ensemble, volume_BCZYX)
            called = ensemble.called(opinion)
            maps = mean_maps(ensemble.models.values(), volume_BCZYX, args.map, called) if args.map else {}
            files, viewer, drawn = write_maps(folder, shown, ready, ensemble, maps, called, args.upsample)
        pictures += drawn
        complete = {name: found.completeness.facts() for name, found in maps.items() if found.completeness is not None}
        runs.append(run_facts(ensemble, opinion, novelty, not_judged, files, complete, viewer))
    warnings = [*next(iter(prepared.values())).warnings, *(text for each in ensembles for text in each.warnings)]
    all_missing = sorted(set().union(*missing.values()), key=CONTRASTS.index)
    facts = patient_facts(
        study.subject,
        {role: str(path.resolve()) for role, path in study.files.items()},
        runs,
        missing=all_missing,
        warnings=warnings,
        seconds={**loading, **watch.seconds},
        environment=environment(),
    )
    write_patient_report(folder, facts, pictures)
    return facts


def say(facts: dict[str, Any], folder: Path) -> None:
    """The result in lines: markers, reading, doubts, seconds per stage."""
    logger.info("%s", facts["patient"])
    for found in facts["runs"]:
        logger.info("  %s: %.3f (SD over folds %.3f)", found["predicts"], found["probability"], found["sd_over_folds"])
    if facts["who_2021"]:
        logger.info("  WHO 2021: %s", facts["who_2021"]["reading"])
    for reason in facts["unlike_training"]:
        logger.warning("  unlike the scans of training: %s", reason)
    logger.info("  seconds: %s", ", ".join(f"{stage} {value:.1f}" for stage, value in facts["seconds"].items()))
    logger.info("  report: %s", folder / "report.html")


def main(argv: Sequence[str] | None = None) -> int:
    """0: every patient has a report; 1: some do not, and are listed with the reason."""
    args = parse(argv)
    setup_logging()
    if args.reference != 0 and args.reference < SMALLEST:
        raise ValueError(f"--reference {args.reference}: give 0 for no comparison, or at least {SMALLEST} subjects")
    patients = choose_patients(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    watch = Stopwatch()
    with watch.stage("load models"):
        device = torch.device(choose_device(args.device))
        ensembles = [open_ensemble(folder, device) for folder in args.run]
        check_together(ensembles)
    known: dict[tuple[Path, tuple[str, ...]], Compared] = {}
    reports, problems = [], {}
    for name, study in patients.items():
        try:
            if isinstance(study, ValueError):
                raise study
            facts = predict_patient(args, study, ensembles, known, watch.seconds)
        except ValueError as error:
            if len(patients) == 1:
                raise
            problems[name] = str(error)
            logger.error("failed: %s: %s", name, error)
            continue
        reports.append(facts)
        say(facts, args.output_dir / name)
    if len(patients) > 1:
        write_table(args.output_dir / "predictions.csv", reports, problems)
        logger.info("%d of %d patients: %s", len(reports), len(patients), args.output_dir / "predictions.csv")
    return 1 if problems else 0


if __name__ == "__main__":
    run(main)
