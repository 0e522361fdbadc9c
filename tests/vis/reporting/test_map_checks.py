"""The section on the checks of maps."""

import json

from vis.reporting.map_checks import gain_over_trivial, interval_cell, map_check_section, passing_maps

ENTRY = {"method": "max", "trivial": False, "verdict": "fails: x", "auc": [0.7, 0.6, 0.8], "pointing": None,
         "mass": [0.1, 0.1, 0.1], "dice": None, "deletion": None, "insertion": None, "deletion_gain": None,
         "insertion_gain": None}  # fmt: skip


def test_a_run_without_checks_has_no_section(tmp_path):
    assert map_check_section(tmp_path) is None


def test_section_holds_table_chart_and_scope(tmp_path):
    folder = tmp_path / "vis" / "truth"
    folder.mkdir(parents=True)
    table = [{**ENTRY, "method": "flair", "trivial": True, "verdict": ""}, ENTRY]
    facts = {"table": table, "cascade": [], "phantom": True, "subjects": 9, "with_tumour": 7, "interval": "95%",
             "shuffled": None}  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(facts))
    section = map_check_section(tmp_path)
    assert section["header"] == [
        "Map",
        "Tumour AUC",
        "Mass in tumour",
        "Verdict",
    ]  # columns without any value are omitted
    assert section["rows"][0] == (
        "trivial",
        ["flair", "0.70 [0.60,\u00a00.80]", "0.10 [0.10,\u00a00.10]", "trivial map"],
    )
    assert section["rows"][1][1][-1] == "fails: x"
    assert "cover 9 held-out subjects, 7 of them with a tumour mask." in section["scope"]
    assert section["chart"]["png"]
    assert not section["shuffled"]


def test_the_conclusion_names_the_maps_that_pass():
    assert passing_maps([ENTRY]).startswith("None of the 1 map variants")
    good = {**ENTRY, "method": "good", "verdict": "passes"}
    assert passing_maps([ENTRY, good, {**good, "method": "flair", "trivial": True}]) == (
        "These map variants pass every check: good. The other 1 fail at least one check and are not reliable."
    )
    assert passing_maps([good]) == "These map variants pass every check: good."


def test_class_specific_maps_are_compared_with_the_trivial_maps():
    won, even = [0.1, 0.02, 0.2], [0.1, -0.02, 0.2]
    entry = {"method": "gradient, absolute", "trivial": False, "auc": won, "gain": {"flair": won, "centre": won}}
    none = {**entry, "method": "occlusion", "gain": {"flair": even, "centre": won}}
    latent = {**entry, "method": "max"}
    said = "No class-specific map has a higher tumour AUC than the trivial maps (flair and centre)."
    assert gain_over_trivial([latent, none]) == said
    assert gain_over_trivial([latent, none, entry]).endswith(
        "higher tumour AUC than the trivial maps (flair and centre): gradient, absolute."
    )
    assert gain_over_trivial([latent]) == gain_over_trivial([{**entry, "auc": None}]) == ""


def test_cell_without_value():
    assert interval_cell(None) == "–"  # noqa: RUF001
