"""Scores of many subjects as a table: means with intervals, differences to trivial maps, and a verdict per method."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from util.files.atomic import atomic_write
from vis.maps.path_integral import TOLERANCE

RESAMPLES = 2000
LEVEL = 0.95
MAX_SIMILARITY = 0.5  # rank correlation with the map of random weights above which a map shows the input, not the model
SCORES = ("auc", "pointing", "mass", "dice", "deletion", "insertion")
CHANCE = "random"  # the row of random patches
STABILITY = {"fold_similarity": "folds", "seed_similarity": "seeds"}
VOXELWISE = ", voxel by voxel"  # ends the name of a trivial row on a finer grid than the maps'


@dataclass(frozen=True)
class Scored:
    """One row of one subject. NaN where a score is not defined."""

    subject: str
    fold: int
    label: int
    method: str
    auc: float = math.nan
    pointing: float = math.nan
    mass: float = math.nan
    dice: float = math.nan
    deletion: float = math.nan
    insertion: float = math.nan
    random_auc: float = math.nan
    """Of the same method on the model whose weights were all drawn anew."""
    random_similarity: float = math.nan
    """Rank correlation of both maps."""
    shuffled_auc: float = math.nan
    """Of the same method on a model trained on shuffled labels."""
    fold_similarity: float = math.nan
    """Mean rank correlation with the maps of the run's other folds."""
    seed_similarity: float = math.nan
    """Mean rank correlation with the maps of repeats of the run with other seeds."""
    completeness_gap: float = math.nan
    """Of a map that approximates an integral: vis/maps/path_integral.py."""


Interval = tuple[float, float, float]  # mean, lower and upper end


def interval(values: np.ndarray, seed: int = 0) -> Interval | None:
    """Mean over subjects and its 95% percentile bootstrap interval (2,000 resamples of subjects); None without any."""
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    picks = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(values.mean()), float(low), float(high)


def summarise(rows: Sequence[Scored], trivial: Sequence[str]) -> list[dict[str, Any]]:
    """One entry per method, in order of appearance: intervals of its scores, of its paired differences, the verdict."""
    subjects = sorted({row.subject for row in rows})
    by_method: dict[str, dict[str, Scored]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.subject] = row

    def column(name: str, score: str) -> np.ndarray:
        found = by_method.get(name, {})
        return np.array([getattr(found[s], score) if s in found else math.nan for s in subjects])

    table = []
    for name in by_method:
        entry: dict[str, Any] = {"method": name, "trivial": name in (CHANCE, *trivial) or name.endswith(VOXELWISE)}
        entry |= {score: interval(column(name, score)) for score in SCORES}
        entry["gain"] = {other: interval(column(name, "auc") - column(other, "auc")) for other in trivial}
        entry["random"] = interval(column(name, "auc") - column(name, "random_auc"))
        entry["random_similarity"] = interval(np.abs(column(name, "random_similarity")))
        entry["shuffled"] = interval(column(name, "auc") - column(name, "shuffled_auc"))
        entry |= {kind: interval(column(name, kind)) for kind in STABILITY}
        entry["deletion_gain"] = interval(column(CHANCE, "deletion") - column(name, "deletion"))
        entry["insertion_gain"] = interval(column(name, "insertion") - column(CHANCE, "insertion"))
        gaps = column(name, "completeness_gap")
        entry["largest_gap"] = None if np.isnan(gaps).all() else float(np.nanmax(gaps))
        table.append(entry | {"verdict": "" if entry["trivial"] else verdict(entry)})
    return table


def verdict(entry: Mapping[str, Any]) -> str:
    """ "passes", or "fails: " and every check that it does not pass: an interval of a difference must lie above 0."""
    failed = [f"does not beat {other}" for other, gain in entry["gain"].items() if _not_above(gain)]
    if _not_above(entry["random"]):
        failed.append("random weights find the tumour as well")
    if entry["random_similarity"] is not None and entry["random_similarity"][0] > MAX_SIMILARITY:
        failed.append("random weights give a similar map")
    if _not_above(entry["shuffled"]):
        failed.append("shuffled labels find the tumour as well")
    for kind, between in STABILITY.items():
        if _not_above(entry[kind]):
            failed.append(f"unlike between {between}")
    if _not_above(entry["deletion_gain"]) and _not_above(entry["insertion_gain"]):
        failed.append("erasing by it is no better than at random")
    if entry["largest_gap"] is not None and entry["largest_gap"] > TOLERANCE:
        failed.append(f"parts miss {entry['largest_gap']:.0%} of what they divide")
    if entry["auc"] is None:
        return "not decided: no subject has a tumour mask"
    return f"fails: {'; '.join(failed)}" if failed else "passes"


def _not_above(found: Interval | None) -> bool:
    """The check was made and its interval reaches 0."""
    return found is not None and found[1] <= 0


def write_scores(path: Path, rows: Sequence[Scored]) -> None:
    """One line per subject and method; an undefined score is an empty cell."""
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(Scored)])
        for row in rows:
            cells = asdict(row).values()
            writer.writerow(["" if isinstance(v, float) and math.isnan(v) else _short(v) for v in cells])


def write_table(path: Path, table: Sequence[Mapping[str, Any]]) -> None:
    """One line per method: every score with its interval, the differences, the verdict."""
    names = [*SCORES, "random", "random_similarity", "shuffled", *STABILITY, "deletion_gain", "insertion_gain"]
    gains = list(table[0]["gain"]) if table else []
    with atomic_write(path, "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        columns = [*names, *(f"auc minus {other}" for other in gains)]
        ends = [f"{name} {end}".strip() for name in columns for end in ("", "low", "high")]
        writer.writerow(["method", *ends, "largest completeness gap", "verdict"])
        for entry in table:
            found = [*(entry[name] for name in names), *(entry["gain"][other] for other in gains)]
            cells = [_short(value) for triple in found for value in (triple or ("", "", ""))]
            gap = "" if entry["largest_gap"] is None else _short(entry["largest_gap"])
            writer.writerow([entry["method"], *cells, gap, entry["verdict"]])


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
