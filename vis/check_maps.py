"""Check the maps of a fine-tuned run on held-out subjects: localisation of the tumour, deletion and insertion, sanity
checks with random weights and shuffled labels, and a verdict on every map.

    python vis/check_maps.py                                    the newest fine-tuning run, every fold and subject
    python -m vis.check_maps --run runs/idh --subjects 4 --map max gradient occlusion --shuffled runs/idh_shuffled
    python -m vis.check_maps --run runs/idh --seeds runs/idh_seed1 runs/idh_seed2

Files in RUN/vis/truth: scores.csv (per subject), table.csv and truth.json (means with intervals, verdicts), truth.png,
group-NAME.png (mean map per class). vis/report.py adds the table to the report of the run.
"""

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from util import cli, ranges
from util.evaluation.predictions import held_out_predictions
from util.inference.fold_models import FoldModels, repeated_run, shuffled_run
from util.inference.open_run import OpenRun, open_run
from util.protocol.held_out import held_out, read_folds
from util.run_folder import MAP_CHECKS, fold_folder
from util.runs import checkpoints, newest_run, read_config, write_json
from util.statistics.bootstrap import CONFIDENCE, RESAMPLES
from vis.drawing.style import save_png
from vis.drawing.wording import CLASS_NAMES
from vis.map_checks.charts import map_check_chart
from vis.map_checks.class_means import ClassMeans
from vis.map_checks.subject import ComparisonModels, SubjectResult, score_subject
from vis.map_checks.table import ScoreRow, summarise_scores, write_scores, write_summary
from vis.map_checks.tumour_scores import trivial_names
from vis.maps.registry import CLASS_SPECIFIC, MapOptions, map_name
from vis.options import add_block, add_class_specific_options, add_device

logger = logging.getLogger(__name__)
DEFAULT = ("max", "norm", "pca", *CLASS_SPECIFIC)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Check the maps of a fine-tuned run on held-out subjects.")
    parser.add_argument("--run", type=Path, help="run folder; default: the newest fine-tuning run")
    parser.add_argument("--data", type=Path, help="prepared folder; default: the training data of the run")
    parser.add_argument(
        "--folds", type=ranges.count, nargs="+", metavar="K", help="default: every fold with a checkpoint"
    )
    parser.add_argument(
        "--subjects", type=ranges.positive, metavar="N", help="held-out subjects per fold; default: all"
    )
    parser.add_argument("--map", nargs="+", type=map_name, default=list(DEFAULT), metavar="NAME", help="maps to check")
    parser.add_argument("--shuffled", type=Path, metavar="RUN", help="a run of --control shuffled_labels")
    parser.add_argument(
        "--seeds", type=Path, nargs="+", default=[], metavar="RUN", help="repeats of the run with another --seed"
    )
    parser.add_argument(
        "--stability",
        type=ranges.count,
        default=2,
        metavar="N",
        help="subjects per fold to compare between folds and --seeds",
    )
    parser.add_argument(
        "--sanity", type=ranges.count, default=2, metavar="N", help="subjects per fold to compare with random weights"
    )
    add_block(parser)
    add_class_specific_options(parser, window=2)
    parser.add_argument("--out", type=Path, help="output folder; default: RUN/vis/truth")
    add_device(parser)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    for flag, count in (("--sanity", args.sanity), ("--stability", args.stability)):
        if count < 0:
            raise ValueError(f"{flag} {count}: give 0 for none, or more")
    run = args.run or newest_run(kind="finetune")
    folds = folds_to_check(run, args.folds)
    labels = {name: prediction.label for name, prediction in held_out_predictions(run).items()}
    options = MapOptions(args.block, None, args.steps, args.window, args.batch_size)
    class_means, rows, similarities = ClassMeans(), [], []
    comparisons, opened = None, None
    for fold, subjects in folds.items():
        opened = open_run(run, "finetune", fold=fold, data=args.data, device=args.device)
        if comparisons is None:
            comparisons = Comparisons.open(
                run, args.shuffled, args.seeds, opened.data.root, args.device, args.sanity, args.stability
            )
        for result in check_fold(opened, fold, subjects[: args.subjects], args.map, options, comparisons, labels):
            rows += result.rows
            similarities += result.similarities
            class_means.add(result)
    assert opened is not None
    table = summarise_scores(rows, trivial_names(opened.data.contrasts))
    facts = {
        "run": str(run), "folds": list(folds), **counts(rows), "phantom": opened.phantom,
        "shuffled": None if args.shuffled is None else str(args.shuffled), "seeds": [str(run) for run in args.seeds],
        "command": sys.argv,
        "interval": f"{CONFIDENCE:.0%} percentile bootstrap over subjects, {RESAMPLES} resamples",
        "cascade": similarities, "table": table,
    }  # fmt: skip
    folder = args.out or run / MAP_CHECKS
    write_scores(folder / "scores.csv", rows)
    write_summary(folder / "table.csv", table)
    write_json(folder / "truth.json", facts)
    save_png(folder / "truth.png", map_check_chart(table, similarities, phantom=opened.phantom))
    class_names = CLASS_NAMES[read_config(run)["label_type"]]
    for name in filter(class_means.has, args.map):
        save_png(folder / f"group-{name}.png", class_means.figure(name, class_names, phantom=opened.phantom))
    log_table(table)
    logger.info("written to %s", folder)


def folds_to_check(run: Path, wanted: list[int] | None) -> dict[int, list[str]]:
    """Held-out subjects by fold. ValueError for a fold that does not exist, and if no fold has a checkpoint."""
    folds = read_folds(run)
    ready = [fold for fold in range(len(folds)) if checkpoints(fold_folder(run, fold))]
    if not (wanted or ready):
        raise ValueError(f"no fold of {run} has a checkpoint; finish the fine-tuning first")
    try:
        return {fold: held_out(folds, fold) for fold in (ready if wanted is None else wanted)}
    except ValueError as error:
        raise ValueError(str(error).replace("--fold ", "--folds ")) from error


@dataclass(frozen=True)
class Comparisons:
    """The runs that maps are compared with, and the number of subjects of each fold that are compared."""

    own: FoldModels
    """The folds of the checked run."""
    seeds: list[FoldModels]
    shuffled: FoldModels | None
    """This comparison uses all subjects."""
    sanity: int
    stability: int

    @classmethod
    def open(
        cls,
        run: Path,
        shuffled: Path | None,
        seeds: Sequence[Path],
        data: Path,
        device: str,
        sanity: int,
        stability: int,
    ) -> "Comparisons":
        """ValueError if a run does not fit to its flag."""
        return cls(
            FoldModels(run, data, device),
            [repeated_run(other, run, data, device) for other in seeds],
            None if shuffled is None else shuffled_run(shuffled, data, device),
            sanity,
            stability,
        )

    def models(self, subject: str, fold: int, position: int) -> ComparisonModels:
        """The models for the subject at `position` in the list of its fold."""
        compare = position < self.stability
        repeats = self.seeds if compare else []
        return ComparisonModels(
            folds=self.own.others(fold) if compare else [],
            seeds=[model for run in repeats if (model := run.holding_out(subject)) is not None],
            shuffled=None if self.shuffled is None else self.shuffled.holding_out(subject),
            randomise=position < self.sanity,
        )


def check_fold(
    opened: OpenRun,
    fold: int,
    subjects: Sequence[str],
    names: Sequence[str],
    options: MapOptions,
    comparisons: Comparisons,
    labels: dict[str, int],
) -> Iterator[SubjectResult]:
    """The results of the subjects of a fold, one at a time. labels: the recorded label by subject."""
    for position, subject in enumerate(tqdm(subjects, desc=f"fold {fold}", disable=not sys.stderr.isatty())):
        yield score_subject(
            opened, opened.study(subject), names, options, fold=fold, label=labels.get(subject, -1),
            others=comparisons.models(subject, fold, position),
        )  # fmt: skip


def counts(rows: Sequence[ScoreRow]) -> dict[str, int]:
    """The numbers of subjects, and of subjects with a tumour mask."""
    return {
        "subjects": len({row.subject for row in rows}),
        "with_tumour": len({row.subject for row in rows if row.auc == row.auc}),
    }


def log_table(table: Sequence[dict[str, Any]]) -> None:
    for entry in table:
        score = "n/a" if entry["auc"] is None else "{:.3f} ({:.3f} to {:.3f})".format(*entry["auc"])
        logger.info("%-28s tumour AUC %s  %s", entry["method"], score, entry["verdict"])


if __name__ == "__main__":
    cli.run(main)
