"""The section of the report on the checks of maps, from the files of vis/check_maps.py in a run folder."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from util.run_folder import MAP_CHECKS
from vis.map_checks.charts import map_check_chart
from vis.maps.registry import CLASS_SPECIFIC
from vis.reporting.facts import NOT_DEFINED
from vis.reporting.sections import encoded

COLUMNS = {"auc": "Tumour AUC", "pointing": "Pointing game", "mass": "Mass in tumour", "dice": "Best Dice",
           "deletion": "Deletion", "insertion": "Insertion", "fold_similarity": "Agreement of folds",
           "seed_similarity": "Agreement of seeds"}  # fmt: skip
GAP = "Completeness gap"


def map_check_section(run: Path) -> dict[str, Any] | None:
    """Values for the template. None for a run whose maps were not checked."""
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
        "chart": encoded(map_check_chart(table, facts["cascade"], phantom=facts["phantom"])),
        "scope": f"The checks cover {facts['subjects']} held-out subjects, {facts['with_tumour']} of them with a "
        f"tumour mask. Brackets: {facts['interval']}.",
        "conclusion": f"{passing_maps(table)} {gain_over_trivial(table)}".strip(),
        "shuffled": facts["shuffled"] is not None,
    }


def passing_maps(table: Sequence[Mapping[str, Any]]) -> str:
    """One or two sentences: which map variants pass every check."""
    checked = [entry for entry in table if not entry["trivial"]]
    passed = [entry["method"] for entry in checked if entry["verdict"] == "passes"]
    if not passed:
        return f"None of the {len(checked)} map variants passes every check: none of them is reliable in this run."
    failed = len(checked) - len(passed)
    text = f"These map variants pass every check: {'; '.join(passed)}."
    return f"{text} The other {failed} fail at least one check and are not reliable." if failed else text


def gain_over_trivial(table: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: which class-specific map variants have a higher tumour AUC than every trivial map.

    Empty if no class-specific map was checked, and if no subject has a tumour mask.
    """
    checked = [entry for entry in table if entry["method"].split(",")[0] in CLASS_SPECIFIC and entry["auc"] is not None]
    if not checked:
        return ""
    trivial = " and ".join(checked[0]["gain"])
    better = [entry["method"] for entry in checked if all(gain and gain[1] > 0 for gain in entry["gain"].values())]
    if not better:
        return f"No class-specific map has a higher tumour AUC than the trivial maps ({trivial})."
    return f"Class-specific maps with a higher tumour AUC than the trivial maps ({trivial}): {'; '.join(better)}."


def _row(entry: Mapping[str, Any], scores: Sequence[str], *, gap: bool) -> tuple[str, list[str]]:
    """(kind, cells) for the table of the template."""
    cells = [interval_cell(entry.get(score)) for score in scores]
    if gap:
        largest = entry.get("largest_gap")
        cells.append(NOT_DEFINED if largest is None else f"{largest:.1%}")
    return "trivial" if entry["trivial"] else "map", [entry["method"], *cells, entry["verdict"] or "trivial map"]


def interval_cell(interval: Sequence[float] | None) -> str:
    """Mean with its interval, without a line break inside the interval; a dash if there is none."""
    return NOT_DEFINED if interval is None else "{:.2f} [{:.2f},\u00a0{:.2f}]".format(*interval)
