"""The table of map checks: mean scores with intervals, paired differences, and the verdict on each map variant."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from util.files.atomic import atomic_write
from util.statistics.bootstrap import CONFIDENCE, RESAMPLES
from vis.maps.path_integral import TOLERANCE

MAX_SIMILARITY = 0.5  # largest accepted rank correlation between the maps of the model and of random weights
SCORES = ("auc", "pointing", "mass", "dice", "deletion", "insertion")
RANDOM = "random"  # row of a map of random values
REPRODUCIBILITY = {"fold_similarity": "folds", "seed_similarity": "seeds"}
PER_VOXEL = ", per voxel"  # ends the row name of a trivial map at voxel resolution


@dataclass(frozen=True)
class ScoreRow:
    """The scores of one map variant of one subject. NaN means that a score is not defined."""

    subject: str
    fold: int
    label: int
    method: str
    """Row name: the map variant."""
    auc: float = math.nan
    pointing: float = math.nan
    mass: float = math.nan
    dice: float = math.nan
    deletion: float = math.nan
    insertion: float = math.nan
    random_auc: float = math.nan
    """Tumour AUC of the same variant for a model whose weights were all redrawn."""
    random_similarity: float = math.nan
    """Rank correlation with the map of that model."""
    shuffled_auc: float = math.nan
    """Tumour AUC of the same variant for a model trained on shuffled labels."""
    fold_similarity: float = math.nan
    """Mean rank correlation with the maps of the other folds of the run."""
    seed_similarity: float = math.nan
    """Mean rank correlation with the maps of repeated runs with other seeds."""
    completeness_gap: float = math.nan
    """Gap of a map that approximates an integral, see vis/maps/path_integral.py."""


MeanInterval = tuple[float, float, float]  # mean, lower and upper end of its interval


def mean_interval(values: np.ndarray, seed: int = 0) -> MeanInterval | None:
    """Mean over subjects with its percentile bootstrap interval, over resampled subjects. None without any value."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    resampled = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[resampled].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(values.mean()), float(low), float(high)


def summarise_scores(rows: Sequence[ScoreRow], trivial: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per map variant, in order of appearance: intervals of scores and of paired differences, and a verdict.

    trivial: row names of the trivial maps.
    """
    subjects = sorted({row.subject for row in rows})
    by_method: dict[str, dict[str, ScoreRow]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.subject] = row

    def column(name: str, score: str) -> np.ndarray:
        by_subject = by_method.get(name, {})
        return np.array([getattr(by_subject[s], score) if s in by_subject else math.nan for s in subjects])

    table = []
    for name in by_method:
        entry: dict[str, Any] = {"method": name, "trivial": name in (RANDOM, *trivial) or name.endswith(PER_VOXEL)}
        entry |= {score: mean_interval(column(name, score)) for score in SCORES}
        entry["gain"] = {other: mean_interval(column(name, "auc") - column(other, "auc")) for other in trivial}
        entry["random"] = mean_interval(column(name, "auc") - column(name, "random_auc"))
        entry["random_similarity"] = mean_interval(np.abs(column(name, "random_similarity")))
        entry["shuffled"] = mean_interval(column(name, "auc") - column(name, "shuffled_auc"))
        entry |= {kind: mean_interval(column(name, kind)) for kind in REPRODUCIBILITY}
        entry["deletion_gain"] = mean_interval(column(RANDOM, "deletion") - column(name, "deletion"))
        entry["insertion_gain"] = mean_interval(column(name, "insertion") - column(RANDOM, "insertion"))
        gaps = column(name, "completeness_gap")
        entry["largest_gap"] = None if np.isnan(gaps).all() else float(np.nanmax(gaps))
        table.append(entry | {"verdict": "" if entry["trivial"] else verdict(entry)})
    return table


def verdict(entry: Mapping[str, Any]) -> str:
    """The text "passes", or "fails: " with the failed checks. A difference passes if its interval lies above 0."""
    failed = [f"tumour AUC not above {other}" for other, gain in entry["gain"].items() if _fails(gain)]
    if _fails(entry["random"]):
        failed.append("random weights localise the tumour as well")
    if entry["random_similarity"] is not None and entry["random_similarity"][0] > MAX_SIMILARITY:
        failed.append("random weights give a similar map")
    if _fails(entry["shuffled"]):
        failed.append("shuffled labels localise the tumour as well")
    for kind, between in REPRODUCIBILITY.items():
        if _fails(entry[kind]):
            failed.append(f"not reproducible between {between}")
    if _fails(entry["deletion_gain"]) and _fails(entry["insertion_gain"]):
        failed.append("deletion and insertion no better than random")
    if entry["largest_gap"] is not None and entry["largest_gap"] > TOLERANCE:
        failed.append(f"completeness gap {entry['largest_gap']:.0%}")
    if entry["auc"] is None:
        return "not decided: no subject has a tumour mask"
    return f"fails: {'; '.join(failed)}" if failed else "passes"


def _fails(difference: MeanInterval | None) -> bool:
    """The check was made, and the interval of the difference does not lie above 0."""
    return difference is not None and difference[1] <= 0


def write_scores(path: Path, rows: Sequence[ScoreRow]) -> None:
    """Write one line per subject and map variant. An undefined score is an empty cell."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(ScoreRow)])
        for row in rows:
            cells = asdict(row).values()
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else _six_digits(v) for v in cells])


def write_summary(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """Write one line per map variant: all scores with intervals, the differences, the verdict."""
    names = [*SCORES, "random", "random_similarity", "shuffled", *REPRODUCIBILITY, "deletion_gain", "insertion_gain"]
    trivial = list(table[0]["gain"]) if table else []
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [*names, *(f"auc minus {other}" for other in trivial)]
        header = [f"{name} {end}".strip() for name in columns for end in ("", "low", "high")]
        writer.writerow(["method", *header, "largest completeness gap", "verdict"])
        for entry in table:
            intervals = [*(entry[name] for name in names), *(entry["gain"][other] for other in trivial)]
            cells = [_six_digits(value) for interval in intervals for value in (interval or ("", "", ""))]
            gap = "" if entry["largest_gap"] is None else _six_digits(entry["largest_gap"])
            writer.writerow([entry["method"], *cells, gap, entry["verdict"]])


def _six_digits(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
