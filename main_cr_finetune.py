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

from engine_finetune import build_classifier, load_fold, train_fold
from util import cli
from util.data.cohort import Cohort, load_cohort
from util.data.controls import controlled
from util.distributed.world import World
from util.evaluation.cross_validation import BaselineData, gather_results
from util.evaluation.fold_predictions import FoldPredictor
from util.files.locks import locked, locked_by_main
from util.hub.download import pinned
from util.options import build, of_run
from util.options.finetune import FinetuneOptions
from util.process.launch import launch
from util.process.stopping import StopRequest
from util.protocol.division import Division, divide, protocol_facts
from util.run_folder import FOLDS, PREDICTIONS, checkpoint_path, fold_folder, fold_folders
from util.runs import checkpoints, device_name, record_command, refuse_exported, start_run
from util.training.data_failures import with_one_restart
from util.training.precision import precision_of_run

logger = logging.getLogger(__name__)
OTHER_FOLDS = "leave it to that job and choose others with --folds"


def parse(argv: list[str] | None = None) -> FinetuneOptions:
    text = "Fine-tune and evaluate a 3D classifier by k-fold cross-validation."
    return of_run.parse(FinetuneOptions, argv, text, "finetune")


def open_cohort(options: FinetuneOptions) -> Cohort:
    data, root = options.data, options.data.root(options.data_key)
    cohort = load_cohort(
        root, data.label_type, sheet=data.labels, normalize=data.normalization, on_bad_volume=data.on_bad_volume
    )
    options.model.check_size(cohort.volumes.size, root)
    return cohort


def start_folds(options: FinetuneOptions, division: Division, config: dict[str, Any], changed: of_run.Changes) -> None:
    """Make the run folder, or join one where other jobs work on other folds: folds.json stays as the first wrote it."""
    run = options.run
    with locked(run.output_dir, "the run's folds.json", "try again in a moment", wait_s=60):
        if run.overwrite:
            for folder in fold_folders(run.output_dir).values():
                with locked(folder, folder.name, "wait for that job before --overwrite"):
                    pass
        continues = run.resume is not None or options.protocol.folds is not None  # other folds may already be here
        start_run(run.output_dir, config, resume=continues, overwrite=run.overwrite, changed=changed)
        if not (run.output_dir / FOLDS).exists():
            division.save(run.output_dir, options.data.label_type, run.seed)


def folds_to_run(options: FinetuneOptions, count: int) -> list[int]:
    """The folds that --folds names; with --eval and without --folds, those that have checkpoints."""
    folds, folder = options.protocol.fold_numbers(count), options.run.output_dir
    if not options.run.eval or options.protocol.folds is not None:
        return folds
    trained = [fold for fold in folds if checkpoints(fold_folder(folder, fold))]
    if not trained:
        raise ValueError(f"--eval: no fold of {folder} has a checkpoint yet")
    return trained


def is_finished(options: FinetuneOptions, fold: int) -> bool:
    """Whether a resumed run has trained the fold to its end, which --patience may set earlier, and predicted it."""
    if options.run.resume is None or options.run.eval:
        return False
    folder = fold_folder(options.run.output_dir, fold)
    is_trained = checkpoint_path(folder, options.training.epochs - 1).exists() or options.protocol.patience is not None
    return (folder / PREDICTIONS).exists() and is_trained


def cross_validate(options: FinetuneOptions, world: World, stop: StopRequest) -> None:
    run, protocol, label_type = options.run, options.protocol, options.data.label_type
    refuse_exported(run.output_dir)
    cohort = open_cohort(options)
    volumes = controlled(cohort.volumes, protocol.control, run.seed)
    labels = {subject: volumes.label(subject) for subject in volumes.subjects}  # shuffled ones stratify their own folds
    division = divide(protocol, labels, cohort.sheet, run, label_type, cohort.volumes.root)
    folds = folds_to_run(options, len(division.folds))
    changed = of_run.changes(options, "finetune")
    of_run.changes_of_folds(options, [] if run.overwrite else folds)
    precision = precision_of_run(options.training.precision, world, None if run.overwrite else run.output_dir)
    config = {
        "kind": "finetune",
        "label_type": label_type,
        "k_fold": protocol.k_fold,
        "repeats": division.repeats,
        "model": {"name": options.model.model, "fields": asdict(build_classifier(options).config)},
        "data": {**volumes.facts(), "labels": str(cohort.sheet.resolve())},
        "finetune": pinned(options.model.finetune) if options.model.finetune else None,
        "n_unknown": cohort.n_unknown,
        "device": device_name(world.device),
        "ranks": world.size,
        "precision": precision.plain(),
        "args": build.as_json(options),
    }
    if run.eval:
        if changed:
            world.on_main_rank(lambda: record_command(run.output_dir, config, changed))
    else:
        world.on_main_rank(lambda: start_folds(options, division, config, changed))
        if not run.overwrite:  # another job may have been the first
            division = divide(protocol, labels, cohort.sheet, run, label_type, cohort.volumes.root)
    predictor = FoldPredictor(volumes, division, protocol, world, options.training.batch_size, precision.used)
    with stop:
        for fold in folds:
            folder = fold_folder(run.output_dir, fold)
            with locked_by_main(world, folder, f"fold {fold}", OTHER_FOLDS):
                if any(world.gather([is_finished(options, fold)])):
                    logger.info("fold %d is finished", fold)
                elif run.eval:
                    predictor.write(folder, fold, *load_fold(options, fold, world.device))
                else:
                    predictor.write(folder, fold, *train_fold(options, fold, predictor, config, stop))
    if world.is_main:
        baselines = BaselineData(cohort.volumes, volumes, cohort.sheet, division, protocol.baselines)
        facts = protocol_facts(protocol, division, run.seed, options.training.class_weights)
        facts |= {"folds_differ": differing} if (differing := of_run.changes_of_folds(options, [])) else {}
        gather_results(run.output_dir, baselines, label_type, cohort.n_unknown, facts)


def main(argv: list[str] | None = None) -> None:
    options = parse(argv)
    run, work = options.run, with_one_restart(cross_validate, options)
    launch(work, device=run.device, threads=run.threads, rank_timeout=run.rank_timeout)


if __name__ == "__main__":
    cli.run(main)
