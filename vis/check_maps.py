"""Are the maps of a fine-tuned run true? Scores on held-out subjects, sanity checks, and a verdict per kind of map.

    python vis/check_maps.py                                    the newest fine-tuning run, every fold and subject
    python -m vis.check_maps --run runs/idh --subjects 4 --map max gradient occlusion --shuffled runs/idh_shuffled
    python -m vis.check_maps --run runs/idh --seeds runs/idh_seed1 runs/idh_seed2

In RUN/vis/truth: scores.csv (per subject), table.csv and truth.json (means with intervals, verdicts), truth.png,
group-NAME.png (mean map per class). vis/report.py puts the table into the report of the run.
"""

import argparse
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):  # started as a script, from any folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from util import cli
from util.cli import positive
from util.evaluation.predictions import recorded
from util.inference.fold_models import FoldModels, repeated_run, shuffled_run
from util.inference.open_run import Session, open_run
from util.protocol.held_out import held_out, read_folds
from util.run_folder import MAP_CHECKS, fold_folder
from util.runs import checkpoints, newest_run, read_config, write_json
from vis.drawing.style import save_png
from vis.drawing.wording import CLASS_NAMES
from vis.map_checks.charts import truth_chart
from vis.map_checks.class_means import Groups
from vis.map_checks.subject import Check, Others, score_subject
from vis.map_checks.table import LEVEL, RESAMPLES, Scored, summarise, write_scores, write_table
from vis.maps.registry import CLASS_SPECIFIC, MapOptions, map_name

logger = logging.getLogger(__name__)
DEFAULT = ("max", "norm", "pca", *CLASS_SPECIFIC)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = cli.Parser(description="Whether the maps of a fine-tuned run are true, on held-out subjects.")
    parser.add_argument("--run", type=Path, help="run folder; default the newest fine-tuning run")
    parser.add_argument("--data", type=Path, help="prepared folder; default the one that the run was trained on")
    parser.add_argument("--folds", type=int, nargs="+", metavar="K", help="default every fold that has a checkpoint")
    parser.add_argument("--subjects", type=positive, metavar="N", help="held-out subjects per fold; default all")
    parser.add_argument(
        "--map", nargs="+", type=map_name, default=list(DEFAULT), metavar="NAME", help="what is checked"
    )
    parser.add_argument("--shuffled", type=Path, metavar="RUN", help="a run of --control shuffled_labels")
    parser.add_argument(
        "--seeds", type=Path, nargs="+", default=[], metavar="RUN", help="repeats of the run with another --seed"
    )
    parser.add_argument(
        "--stability", type=int, default=2, metavar="N", help="subjects per fold for maps of other folds and --seeds"
    )
    parser.add_argument("--sanity", type=int, default=2, metavar="N", help="subjects per fold for randomised weights")
    parser.add_argument("--block", type=int, default=-1, help="maps after this block, from 0; -1 is the last")
    parser.add_argument("--steps", type=positive, default=16, help="of integrated gradients")
    parser.add_argument("--window", type=positive, default=2, help="side in patches of what is occluded at once")
    parser.add_argument("--batch_size", type=positive, default=8, help="volumes computed at a time")
    parser.add_argument("--out", type=Path, help="where files go; default RUN/vis/truth")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    return parser.parse_args(argv)


def folds_to_check(run: Path, wanted: list[int] | None) -> dict[int, list[str]]:
    """Held-out subjects by fold. ValueError for a fold that does not exist and where no fold has a checkpoint."""
    folds = read_folds(run)
    ready = [fold for fold in range(len(folds)) if checkpoints(fold_folder(run, fold))]
    if not (wanted or ready):
        raise ValueError(f"no fold of {run} has a checkpoint; finish the fine-tuning first")
    try:
        return {fold: held_out(folds, fold) for fold in (ready if wanted is None else wanted)}
    except ValueError as error:
        raise ValueError(str(error).replace("--fold ", "--folds ")) from error


@dataclass(frozen=True)
class Compared:
    """What maps are compared with, and on how many subjects of each fold. shuffled: on all of them."""

    own: FoldModels
    seeds: list[FoldModels]
    shuffled: FoldModels | None
    sanity: int
    stability: int

    def models(self, subject: str, fold: int, position: int) -> Others:
        """For the fold's subject at `position` of its list."""
        stable = position < self.stability
        repeats = self.seeds if stable else []
        return Others(
            folds=self.own.others(fold) if stable else [],
            seeds=[found for run in repeats if (found := run.holding_out(subject)) is not None],
            shuffled=None if self.shuffled is None else self.shuffled.holding_out(subject),
            randomise=position < self.sanity,
        )


def check_fold(session: Session, fold: int, subjects: list[str], check: Check, compared: Compared,
               labels: dict[str, int], groups: Groups) -> tuple[list[Scored], list[dict]]:  # fmt: skip
    """Scores of the fold's subjects, and the similarities of its randomised models' maps."""
    rows, similarities = [], []
    for position, subject in enumerate(tqdm(subjects, desc=f"fold {fold}", disable=not sys.stderr.isatty())):
        found = score_subject(
            session, session.study(subject), check, fold=fold, label=labels.get(subject, -1),
            others=compared.models(subject, fold, position),
        )  # fmt: skip
        rows += found.rows
        similarities += found.similarities
        groups.add(found)
    return rows, similarities


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    cli.setup_logging()
    for flag, count in (("--sanity", args.sanity), ("--stability", args.stability)):
        if count < 0:
            raise ValueError(f"{flag} {count}: give 0 for none, or more")
    run = args.run or newest_run(kind="finetune")
    folds = folds_to_check(run, args.folds)
    labels = {name: found.label for name, found in recorded(run).items()}
    check = Check(tuple(args.map), MapOptions(args.block, None, args.steps, args.window, args.batch_size))
    groups, rows, similarities, compared = Groups(), [], [], None
    trivial, phantom = (), False
    config = read_config(run)
    for fold, subjects in folds.items():
        session = open_run(run, "finetune", fold=fold, data=args.data, device=args.device)
        if compared is None:
            root, device = session.data.root, args.device
            compared = Compared(
                FoldModels(run, root, device),
                [repeated_run(other, run, root, device) for other in args.seeds],
                None if args.shuffled is None else shuffled_run(args.shuffled, root, device),
                args.sanity,
                args.stability,
            )
        trivial, phantom = check.trivial(session.data.contrasts), session.phantom
        more = check_fold(session, fold, subjects[: args.subjects], check, compared, labels, groups)
        rows, similarities = rows + more[0], similarities + more[1]
    table = summarise(rows, trivial)
    folder = args.out or run / MAP_CHECKS
    write_scores(folder / "scores.csv", rows)
    write_table(folder / "table.csv", table)
    write_json(folder / "truth.json", {
        "run": str(run), "folds": list(folds), "subjects": len({row.subject for row in rows}),
        "with_tumour": len({row.subject for row in rows if row.auc == row.auc}), "phantom": phantom,
        "shuffled": None if args.shuffled is None else str(args.shuffled), "seeds": [str(run) for run in args.seeds],
        "command": sys.argv,
        "interval": f"{LEVEL:.0%} percentile bootstrap over subjects, {RESAMPLES} resamples",
        "cascade": similarities, "table": table,
    })  # fmt: skip
    save_png(folder / "truth.png", truth_chart(table, similarities, phantom=phantom))
    for name in (name for name in args.map if groups.has(name)):
        save_png(folder / f"group-{name}.png", groups.figure(name, CLASS_NAMES[config["label_type"]], phantom=phantom))
    for entry in table:
        score = "n/a" if entry["auc"] is None else "{:.3f} ({:.3f} to {:.3f})".format(*entry["auc"])
        logger.info("%-28s tumour AUC %s  %s", entry["method"], score, entry["verdict"])
    logger.info("written to %s", folder)


if __name__ == "__main__":
    cli.run(main)
