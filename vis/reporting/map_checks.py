"""The report's section on whether maps are true, from what vis/check_maps.py left in a run folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.run_folder import MAP_CHECKS
from vis.map_checks.charts import truth_chart
from vis.maps.registry import CLASS_SPECIFIC
from vis.reporting.facts import NOTHING
from vis.reporting.sections import drawn

COLUMNS = {"auc": "Tumour AUC", "pointing": "Pointing", "mass": "Mass inside", "dice": "Best Dice",
           "deletion": "Deletion", "insertion": "Insertion", "fold_similarity": "Between folds",
           "seed_similarity": "Between seeds"}  # fmt: skip
GAP = "Largest completeness gap"


def truth_section(run: Path) -> dict[str, Any] | None:
    """Values for the template; None for a run whose maps were not checked."""
    path = run / MAP_CHECKS / "truth.json"
    if not path.is_file():
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    table = facts["table"]
    columns = {score: title for score, title in COLUMNS.items() if any(entry.get(score) for entry in table)}
    gaps = [GAP] if any(entry.get("largest_gap") is not None for entry in table) else []
    return {
        "header": ["Map", *columns.values(), *gaps, "Verdict"],
        "rows": [_row(entry, list(columns), gap=bool(gaps)) for entry in table],
        "chart": drawn(truth_chart(table, facts["cascade"], phantom=facts["phantom"])),
        "scope": f"{facts['subjects']} held-out subjects, {facts['with_tumour']} of them with a tumour mask; brackets: "
        f"{facts['interval']}.",
        "conclusion": f"{conclusion(table)} {class_specific(table)}",
        "shuffled": facts["shuffled"] is not None,
    }


def conclusion(table: Sequence[Mapping[str, Any]]) -> str:
    """In one sentence: which kinds of maps pass."""
    checked = [entry for entry in table if not entry["trivial"]]
    passed = [entry["method"] for entry in checked if entry["verdict"] == "passes"]
    if not passed:
        return (
            f"None of the {len(checked)} readings of maps passes every check: none of them may be trusted in this run."
        )
    rest = len(checked) - len(passed)
    return f"Every check is passed by: {', '.join(passed)}. The other {rest} fail at least one and may not be trusted."


def class_specific(table: Sequence[Mapping[str, Any]]) -> str:
    """In one sentence: which readings of class-specific maps beat every trivial map in tumour AUC; empty where none
    was checked or no subject has a tumour mask."""
    checked = [entry for entry in table if entry["method"].split(",")[0] in CLASS_SPECIFIC and entry["auc"] is not None]
    if not checked:
        return ""
    trivial = " and ".join(checked[0]["gain"])
    better = [entry["method"] for entry in checked if all(found and found[1] > 0 for found in entry["gain"].values())]
    if not better:
        return f"No class-specific map beats the trivial maps ({trivial}) in tumour AUC."
    return f"In tumour AUC the trivial maps ({trivial}) are beaten by the class-specific {'; '.join(better)}."


def _row(entry: Mapping[str, Any], scores: Sequence[str], *, gap: bool) -> tuple[str, list[str]]:
    """(kind, cells) as the template's tables take them."""
    cells = [cell(entry.get(score)) for score in scores]
    if gap:
        largest = entry.get("largest_gap")
        cells.append(NOTHING if largest is None else f"{largest:.1%}")
    return "trivial" if entry["trivial"] else "map", [entry["method"], *cells, entry["verdict"] or "without a model"]


def cell(found: Sequence[float] | None) -> str:
    """Mean with its interval, which no line end parts, in two decimals; a dash where there is none."""
    return NOTHING if found is None else "{:.2f} [{:.2f},\u00a0{:.2f}]".format(*found)
