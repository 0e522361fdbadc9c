"""Readers raise only their own errors for damaged files. `make torture` runs this for longer."""

import logging
import re
import warnings
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings

from tests.robustness.fuzz import fuzz, main
from tests.robustness.fuzz_coverage import AVAILABLE, guided
from tests.robustness.fuzz_inputs import TARGETS, Target, outcome

EXAMPLES = 60


@pytest.fixture(autouse=True)
def _quiet():
    """Silence the warnings of libraries about damaged files."""
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_are_read_or_refused_with_our_errors(target):
    counts = Counter()

    @settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(target.files)
    def attempt(file):
        counts[outcome(target, file)] += 1

    attempt()
    assert counts["refused"] > EXAMPLES / 10
    assert counts["read"] > 0  # some files are read completely


def test_a_crash_is_found_and_reported():
    def crash(path):
        if b"9" in path.read_bytes():
            raise KeyError("crash")

    target = Target("crashing", TARGETS[0].files, crash)
    counts, crashes = fuzz(target, seconds=20, seed=1, most_crashes=1)
    assert counts["crashed"] == 1
    assert "KeyError" in crashes[0]
    nameless = Target("nameless", TARGETS[0].files, lambda path: int("x"))
    assert "names no file" in fuzz(nameless, seconds=20, seed=1, most_crashes=1)[1][0]


def test_counts_are_written_with_their_minutes(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.robustness.fuzz.BATCH", 5)
    main(["--minutes", "0.002", "--engines", "hypothesis", "--out", str(tmp_path)])
    (report,) = tmp_path.glob("fuzz_*.md")
    text = report.read_text()
    for target in TARGETS:
        assert re.search(rf"^\| {target.name} \| hypothesis \| \d+ \| \d+ \| \d+ \| 0 \|", text, re.MULTILINE)
    assert "--minutes 0.002" in text


@pytest.mark.skipif(not AVAILABLE, reason="atheris is not installed")
def test_atheris_tries_files_and_finds_a_crash():
    counts, crashes = guided(TARGETS[2], seconds=1, seed=1)
    assert crashes == []
    assert counts["read"] > 0
    assert counts["refused"] > 0

    def crash(path):
        raise KeyError("crash")

    counts, (message,) = guided(Target("crashing", TARGETS[0].files, crash), seconds=60, seed=1)
    assert counts["crashed"] == 1
    assert message == "crashing, atheris, seed 1: KeyError: 'crash'"


def test_an_engine_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr("tests.robustness.fuzz.AVAILABLE", False)
    with pytest.raises(ValueError, match="--engines atheris: it is not installed"):
        main(["--engines", "atheris"])


def test_minutes_are_checked():
    with pytest.raises(ValueError, match="--minutes 0"):
        main(["--minutes", "0"])
