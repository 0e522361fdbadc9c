"""Fine-tune a classifier with k-fold cross-validation and evaluate it on the held-out subjects.

python main_cr_finetune.py --model vim_3d_small_patch16 --finetune runs/pretrain/checkpoint-999.pth --label_type IDH
python main_cr_finetune.py ... --folds 0,3      only these folds; results are gathered from all folds that exist
python main_cr_finetune.py ... --eval           score the finished folds again
python main_cr_finetune.py ... --repeats 3 --stratify_by Grade --val_fraction 0.2 --select best_val --patience 20
python main_cr_finetune.py ... --control shuffled_labels        must fall to chance
"""

import logging
from dataclasses import asdict
from typing import Any

from finetune_fold import build_classifier, finished_fold, fold_folder, test_fold, train_fold
from util import cli
from util.data.cohort import Cohort, load_cohort
from util.data.controls import controlled
from util.distributed.world import World
from util.evaluation.cross_validation import PREDICTIONS, RAW_PREDICTIONS, Rivals, gather_results
from util.evaluation.predictions import write_predictions
from util.files.locks import locked, locked_by_main
from util.hub.download import pinned
from util.options.build import as_json
from util.options.build import parse as parse_options
from util.options.finetune import FinetuneOptions
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.protocol.division import FOLDS_FILE, Division, divide, protocol_facts
from util.runs import checkpoint_path, checkpoints, device_name, refuse_exported, start_run
from util.training.data_failures import surviving
from util.training.precision import precision_of_run

logger = logging.getLogger(__name__)


def parse(argv: list[str] | None = None) -> FinetuneOptions:
    return parse_options(FinetuneOptions, argv, "Fine-tune and evaluate a 3D classifier by k-fold cross-validation.")


def open_cohort(options: FinetuneOptions) -> Cohort:
    root = options.data.root("TEST_BASE_PATH")
    cohort = load_cohort(
        root,
        options.data.label_type,
        sheet=options.data.labels,
        normalize=options.data.normalization,
        on_bad_volume=options.data.on_bad_volume,
    )
    options.model.check_size(cohort.volumes.size, root)
    return cohort


def start_folds(options: FinetuneOptions, division: Division, config: dict[str, Any]) -> None:
    """Make the run folder, or join one where other jobs work on other folds: folds.json stays as the first wrote it."""
    with locked(options.run.output_dir, "the run's folds.json", "try again in a moment", wait_s=60):
        if options.run.overwrite:
            for folder in options.run.output_dir.glob("fold_*"):
                with locked(folder, folder.name, "wait for that job before --overwrite"):
                    pass
        continues = (
            options.run.resume is not None or options.protocol.folds is not None
        )  # other folds may already be here
        start_run(options.run.output_dir, config, resume=continues, overwrite=options.run.overwrite)
        if not (options.run.output_dir / FOLDS_FILE).exists():
            division.save(options.run.output_dir, options.data.label_type, options.run.seed)


def is_finished(options: FinetuneOptions, fold: int) -> bool:
    """Whether the fold has been trained to its end, which --patience may set before the last epoch, and predicted."""
    folder = fold_folder(options, fold)
    is_trained = checkpoint_path(folder, options.training.epochs - 1).exists() or options.protocol.patience is not None
    return (folder / PREDICTIONS).exists() and is_trained


def folds_to_run(options: FinetuneOptions, count: int) -> list[int]:
    """What --folds says; with --eval and without --folds, those that have checkpoints."""
    folds = options.protocol.fold_numbers(count)
    if not options.run.eval or options.protocol.folds is not None:
        return folds
    trained = [fold for fold in folds if checkpoints(fold_folder(options, fold))]
    if not trained:
        raise ValueError(f"--eval: no fold of {options.run.output_dir} has a checkpoint yet")
    return trained


def cross_validate(options: FinetuneOptions, world: World, stop: StopRequest) -> None:
    refuse_exported(options.run.output_dir)
    cohort = open_cohort(options)
    volumes = controlled(cohort.volumes, options.protocol.control, options.run.seed)
    labels = {subject: volumes.label(subject) for subject in volumes.subjects}  # shuffled ones stratify their own folds
    division = divide(options.protocol, labels, cohort.sheet, options.run, options.data.label_type)
    chosen = folds_to_run(options, len(division.folds))
    starts_over = options.run.overwrite and options.run.resume is None and not options.run.eval
    precision = precision_of_run(options.training.precision, world, None if starts_over else options.run.output_dir)
    config = {
        "kind": "finetune",
        "label_type": options.data.label_type,
        "k_fold": options.protocol.k_fold,
        "repeats": division.repeats,
        "model": {"name": options.model.model, "fields": asdict(build_classifier(options).config)},
        "data": {**volumes.describe(), "labels": str(cohort.sheet.resolve())},
        "finetune": pinned(options.model.finetune) if options.model.finetune else None,
        "n_unknown": cohort.n_unknown,
        "device": device_name(world.device),
        "ranks": world.size,
        "precision": precision.plain(),
        "args": as_json(options),
    }
    if not options.run.eval:
        world.together(lambda: start_folds(options, division, config))
        if not options.run.overwrite:  # another job may have been the first
            division = divide(options.protocol, labels, cohort.sheet, options.run, options.data.label_type)

    def run_fold(fold: int) -> None:
        if options.run.eval:
            states = finished_fold(options, fold, world)
        else:
            states = train_fold(options, fold, division.folds[fold], volumes, config, world, stop, precision.used)
        folder = fold_folder(options, fold)
        if states.raw is not None:
            found, _ = test_fold(options, states.raw, fold, division, volumes, world, precision.used)
            if world.is_main:
                write_predictions(folder / RAW_PREDICTIONS, found)
        found, decision = test_fold(options, states.tested, fold, division, volumes, world, precision.used)
        if world.is_main:
            decision.save(folder)
            write_predictions(folder / PREDICTIONS, found)  # the last file: it says that a fold is done

    with stop:
        for fold in chosen:
            remedy = "leave it to that job and choose others with --folds"
            with locked_by_main(world, fold_folder(options, fold), f"fold {fold}", remedy):
                if any(
                    world.gather(
                        [options.run.resume is not None and not options.run.eval and is_finished(options, fold)]
                    )
                ):
                    logger.info("fold %d is finished", fold)
                else:
                    run_fold(fold)
    if world.is_main:
        rivals = Rivals(cohort.volumes, volumes, cohort.sheet, division, options.protocol.baselines)
        gather_results(
            options.run.output_dir,
            rivals,
            options.data.label_type,
            cohort.n_unknown,
            protocol_facts(options.protocol, division, options.run.seed, options.training.class_weights),
        )


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    run = options.run
    launch(surviving(cross_validate, options), device=run.device, threads=run.threads, rank_timeout=run.rank_timeout)


if __name__ == "__main__":
    cli.run(main)
