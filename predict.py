"""Predict the markers of new patients from NIfTI files, with all folds of one or two fine-tuning runs.

python predict.py PATIENT_FOLDER --run runs/idh --run runs/1p19q --output_dir predictions
python predict.py --t1 a.nii.gz --t2 b.nii.gz --t1ce c.nii.gz --flair d.nii.gz --run runs/idh
python predict.py FOLDER_A FOLDER_B FOLDER_C --run runs/idh        also writes predictions.csv

Research use only, not a medical device. The contrasts must be skull-stripped and co-registered, as in training. Files
of a patient, in OUTPUT_DIR/PATIENT: report.html, report.json, a viewer, and maps as NIfTI in patient space.
"""

import argparse
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from util import ranges
from util.cli import RUN_FROM, Parser, run, setup_logging
from util.data.folder import CONTRASTS
from util.data.prepare.study import Prepared, Settings, prepare_study
from util.data.prepare.summary import unused_masks
from util.data.raw.layouts import RawStudy
from util.data.raw.new_patient import find_patient, missing_contrasts, patient_from_files, with_masks
from util.data.raw.orientation import orientation_code
from util.data.raw.roles import Names, given_names, names_option
from util.distributed.world import choose_device
from util.inference.ensemble import EnsemblePrediction, FoldEnsemble, check_label_types, open_ensemble
from util.patient.novelty import SMALLEST, Novelty, ReferenceFeatures, novelty_of
from util.patient.reference_features import reference_features
from util.runs import environment
from vis.export.patient_maps import write_patient_maps
from vis.maps.fold_mean import AVERAGED_MAPS
from vis.maps.token_grid import Upsampling
from vis.reporting.patient import patient_facts, run_facts, write_patient_report, write_predictions_table

logger = logging.getLogger(__name__)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="one folder per patient, any layout")
    for contrast in CONTRASTS:
        parser.add_argument(f"--{contrast}", type=Path, metavar="FILE", help=f"{contrast} scan, instead of a folder")
    parser.add_argument("--seg", type=Path, metavar="FILE", help="segmentation of the tumour, of one patient")
    parser.add_argument("--brain_mask", type=Path, metavar="FILE", help="mask of the brain, of one patient")
    parser.add_argument(
        "--names",
        type=names_option,
        nargs="+",
        action="extend",
        default=[],
        metavar="ROLE=NAME",
        help="what the files of a folder call a contrast, seg or brain, beside the usual names: t1ce=T1POST; * matches "
        "any part; seg=none: use no segmentation",
    )
    parser.add_argument(
        "--run", action="append", required=True, type=Path, help=f"{RUN_FROM}; repeat it for a second label type"
    )
    parser.add_argument("--output_dir", type=Path, default=Path("predictions"), help="default: %(default)s")
    parser.add_argument(
        "--map",
        nargs="*",
        choices=AVERAGED_MAPS,
        default=["max"],
        help="maps to write, averaged over folds; default: max. gradient, influence, integrated and occlusion (slow) "
        "explain the predicted class",
    )
    parser.add_argument(
        "--upsample",
        choices=get_args(Upsampling),
        default="nearest",
        help="maps from tokens to voxels; default: nearest",
    )
    parser.add_argument(
        "--reference",
        type=ranges.count,
        default=40,
        metavar="N",
        help="number of held-out subjects of each fold that the scan is compared with; their features are computed "
        "once per run; 0 for no comparison; default: %(default)s",
    )
    parser.add_argument(
        "--assume_orientation",
        type=orientation_code,
        metavar="CODE",
        help="directions of the axes of files whose header has no orientation, such as LPS; default: refuse them",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    parser.add_argument("--threads", type=ranges.threads, help="CPU threads of torch; default: the choice of torch")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status 0: every patient has a report. 1: some patients failed, and the table lists the reasons."""
    args = parse(argv)
    setup_logging()
    if args.reference != 0 and args.reference < SMALLEST:
        raise ValueError(f"--reference {args.reference}: give 0 for no comparison, or at least {SMALLEST} subjects")
    files = {contrast: getattr(args, contrast) for contrast in CONTRASTS}
    files |= {"seg": args.seg, "brain": args.brain_mask}
    given = {name: path for name, path in files.items() if path is not None}
    patients = choose_patients(args.folders, given, given_names(args.names))
    if args.threads:
        torch.set_num_threads(args.threads)
    watch = Stopwatch()
    with watch.stage("load models"):
        device = torch.device(choose_device(args.device))
        ensembles = [open_ensemble(folder, device) for folder in args.run]
        check_label_types(ensembles)
    predictor = Predictor(ensembles, args.output_dir, args.map, args.upsample, args.reference, watch.seconds)
    reports, problems = [], {}
    for name, study in patients.items():
        try:
            if isinstance(study, ValueError):
                raise study
            study.assumed_orientation = args.assume_orientation
            log_masks(study)
            facts = predictor.predict(study)
        except ValueError as error:
            if len(patients) == 1:
                raise
            problems[name] = str(error)
            logger.error("failed: %s: %s", name, error)
            continue
        reports.append(facts)
        log_result(facts, args.output_dir / name)
    if len(patients) > 1:
        write_predictions_table(args.output_dir / "predictions.csv", reports, problems)
        logger.info("%d of %d patients: %s", len(reports), len(patients), args.output_dir / "predictions.csv")
    return 1 if problems else 0


def choose_patients(
    folders: Sequence[Path],
    files: Mapping[str, Path],
    names: Names = Names(),  # noqa: B008 - it is never changed
) -> dict[str, RawStudy | ValueError]:
    """Studies by name, or the reason why a folder holds none.

    files: the files of a single patient, by contrast, or "seg" and "brain" beside a folder.
    """
    flags = ", ".join(f"--{contrast}" for contrast in CONTRASTS if contrast in files)
    if bool(flags) == bool(folders):
        problem = f"folders and {flags} are both given" if flags else "neither a folder nor a file is given"
        raise ValueError(f"{problem}: give folders of patients, or one patient's files by --t1, --t2, --t1ce, --flair")
    if flags:
        study = patient_from_files(files)
        return {study.subject: study}
    if files and len(folders) > 1:
        raise ValueError("--seg and --brain_mask are of one patient; give one folder")
    patients: dict[str, RawStudy | ValueError] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in patients:
            raise ValueError(f"two folders are named {name}, so one report would replace the other; rename one")
        try:
            patients[name] = with_masks(find_patient(folder, names), files)
        except ValueError as error:
            patients[name] = error
    return patients


@dataclass(frozen=True)
class Comparison:
    """The held-out subjects that a scan is compared with."""

    references: Sequence[ReferenceFeatures | None] = ()
    """By fold."""
    problem: str = ""
    """The reason why there is no comparison."""

    def novelty(self, prediction: EnsemblePrediction) -> tuple[Novelty | None, str]:
        """The novelty of a scan, or the reason why it is unknown."""
        if self.problem:
            return None, self.problem
        novelty = novelty_of(self.references, list(prediction.features.values()))
        return novelty, "" if novelty else "too few held-out subjects"


@dataclass(frozen=True)
class Predictor:
    """Predicts patients with the models of all runs and writes their files."""

    ensembles: Sequence[FoldEnsemble]
    output_dir: Path
    maps: Sequence[str]
    upsampling: Upsampling
    reference_subjects: int
    """Number of held-out subjects of each fold to compare with. 0: no comparison."""
    loading_seconds: Mapping[str, float]
    comparisons: dict[tuple[Path, tuple[str, ...]], Comparison] = field(default_factory=dict)
    """Cache, by run and missing contrasts."""

    def predict(self, study: RawStudy) -> dict[str, Any]:
        """Write all files of a patient to OUTPUT_DIR/PATIENT and return the facts of the report.

        ValueError names the problem with the files of the patient.
        """
        watch, folder = Stopwatch(), self.output_dir / study.subject
        missing = {ensemble.folder: missing_contrasts(study, ensemble.contrasts) for ensemble in self.ensembles}
        for ensemble in self.ensembles:
            ensemble.check_contrasts(missing[ensemble.folder])
        present = tuple(contrast for contrast in CONTRASTS if contrast in study.files)
        prepared: dict[Settings, Prepared] = {}
        runs, pictures = [], []
        for ensemble in self.ensembles:
            with watch.stage("read and prepare"):
                if ensemble.settings not in prepared:
                    prepared[ensemble.settings] = prepare_study(study, ensemble.settings, present)
                ready = prepared[ensemble.settings]
                volume_BCZYX = ensemble.model_input(ready)
            with watch.stage("predict"):
                prediction = ensemble.predict(volume_BCZYX)
            with watch.stage("compare with held-out subjects"):
                novelty, problem = self.comparison(ensemble, missing[ensemble.folder]).novelty(prediction)
            with watch.stage("maps"):
                maps = write_patient_maps(
                    folder, study.subject, ready, ensemble, volume_BCZYX, self.maps,
                    target=ensemble.predicted_class(prediction), upsampling=self.upsampling,
                )  # fmt: skip
            runs.append(run_facts(ensemble, prediction, novelty, problem, maps))
            pictures += maps.pictures
        warnings = [
            *next(iter(prepared.values())).warnings,
            *(text for each in self.ensembles for text in each.warnings),
        ]
        facts = patient_facts(
            study.subject,
            {role: str(path.resolve()) for role, path in study.files.items()},
            runs,
            missing=sorted(set().union(*missing.values()), key=CONTRASTS.index),
            warnings=warnings,
            seconds={**self.loading_seconds, **watch.seconds},
            environment=environment(),
        )
        write_patient_report(folder, facts, pictures)
        return facts

    def comparison(self, ensemble: FoldEnsemble, missing: Sequence[str]) -> Comparison:
        """The comparison for a run and a set of missing contrasts. Without the data of the run there is none."""
        key = (ensemble.folder, tuple(missing))
        if key not in self.comparisons:
            self.comparisons[key] = self._compute_comparison(ensemble, missing)
        return self.comparisons[key]

    def _compute_comparison(self, ensemble: FoldEnsemble, missing: Sequence[str]) -> Comparison:
        if self.reference_subjects == 0:
            return Comparison(problem="--reference 0")
        try:
            return Comparison(reference_features(ensemble, missing, self.reference_subjects))
        except ValueError as error:
            logger.warning("%s: no comparison with the training data: %s", ensemble.folder, error)
            return Comparison(problem=str(error))


def log_masks(study: RawStudy) -> None:
    """Log which masks are used, and which file looks like one and is not."""
    for role, kind in (("seg", "the tumour"), ("brain", "the brain")):
        if role in study.files:
            logger.info("%s: mask of %s: %s", study.subject, kind, study.files[role])
    if lookalikes := unused_masks([study]):
        logger.warning("%s: looks like a mask and is not used: %s", study.subject, ", ".join(map(str, lookalikes)))


def log_result(facts: dict[str, Any], folder: Path) -> None:
    """Log the result: probabilities, WHO type, doubts, seconds per stage."""
    logger.info("%s", facts["patient"])
    for each in facts["runs"]:
        logger.info("  %s: %.3f (SD over folds %.3f)", each["predicts"], each["probability"], each["sd_over_folds"])
    if facts["who_2021"]:
        logger.info("  WHO 2021: %s", facts["who_2021"]["reading"])
    for warning in facts["warnings"]:
        logger.warning("  warning: %s", warning)
    for reason in facts["unlike_training"]:
        logger.warning("  differs from the training data: %s", reason)
    logger.info("  seconds: %s", ", ".join(f"{stage} {value:.1f}" for stage, value in facts["seconds"].items()))
    logger.info("  report: %s", folder / "report.html")


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


if __name__ == "__main__":
    run(main)
