"""The section on whether maps are true."""

import json

from vis.reporting.map_checks import cell, class_specific, conclusion, truth_section

ENTRY = {"method": "max", "trivial": False, "verdict": "fails: x", "auc": [0.7, 0.6, 0.8], "pointing": None,
         "mass": [0.1, 0.1, 0.1], "dice": None, "deletion": None, "insertion": None, "deletion_gain": None,
         "insertion_gain": None}  # fmt: skip


def test_run_that_was_not_checked_has_no_section(tmp_path):
    assert truth_section(tmp_path) is None


def test_section_holds_table_chart_and_scope(tmp_path):
    folder = tmp_path / "vis" / "truth"
    folder.mkdir(parents=True)
    table = [{**ENTRY, "method": "flair", "trivial": True, "verdict": ""}, ENTRY]
    facts = {"table": table, "cascade": [], "phantom": True, "subjects": 9, "with_tumour": 7, "interval": "95%",
             "shuffled": None}  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(facts))
    section = truth_section(tmp_path)
    assert section["header"] == ["Map", "Tumour AUC", "Mass inside", "Verdict"]  # scores that nobody has are left out
    assert section["rows"][0] == (
        "trivial",
        ["flair", "0.70 [0.60,\u00a00.80]", "0.10 [0.10,\u00a00.10]", "without a model"],
    )
    assert section["rows"][1][1][-1] == "fails: x"
    assert section["scope"].startswith("9 held-out subjects, 7 of them with a tumour mask")
    assert section["chart"]["png"]
    assert not section["shuffled"]


def test_conclusion_says_who_passes_or_that_nobody_does():
    assert conclusion([ENTRY]).startswith("None of the 1 readings")
    good = {**ENTRY, "method": "good", "verdict": "passes"}
    assert conclusion([ENTRY, good, {**good, "method": "flair", "trivial": True}]) == (
        "Every check is passed by: good. The other 1 fail at least one and may not be trusted."
    )


def test_class_specific_maps_beat_the_trivial_ones_or_it_is_said_that_they_do_not():
    won, even = [0.1, 0.02, 0.2], [0.1, -0.02, 0.2]
    entry = {"method": "gradient, either way", "trivial": False, "auc": won, "gain": {"flair": won, "centre": won}}
    none = {**entry, "method": "occlusion", "gain": {"flair": even, "centre": won}}
    latent = {**entry, "method": "max"}
    said = "No class-specific map beats the trivial maps (flair and centre) in tumour AUC."
    assert class_specific([latent, none]) == said
    assert class_specific([latent, none, entry]).endswith("beaten by the class-specific gradient, either way.")
    assert class_specific([latent]) == class_specific([{**entry, "auc": None}]) == ""


def test_cell_without_value():
    assert cell(None) == "–"  # noqa: RUF001
