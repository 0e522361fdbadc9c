"""`make quick` takes the tests of what changed, nearest first, and stops when its time is up."""

import pytest

from tests.helpers.quick import Budget, files_to_test, run_within


def test_own_tests_come_first_then_those_of_importers():
    files = files_to_test(["util/statistics/metrics.py", "README.md"])
    assert files[0] == "tests/util/statistics/test_metrics.py"
    assert files.index("tests/util/statistics/test_bootstrap.py") < files.index("tests/programs/test_compare.py")
    assert "tests/ops/test_dispatch.py" not in files
    assert len(files) == len(set(files))


def test_changed_tests_run_themselves():
    assert files_to_test(["tests/util/test_cli.py"])[0] == "tests/util/test_cli.py"
    assert files_to_test(["tests/helpers/prepared.py", "tests/gone/test_gone.py"]) == ["tests/test_architecture.py"]


@pytest.mark.parametrize(("seconds", "passed"), [(1000.0, 3), (-1.0, 0)])
def test_no_test_starts_after_the_budget(tmp_path, seconds, passed, capsys):
    (tmp_path / f"test_{passed}_of_three.py").write_text("".join(f"def test_{n}(): pass\n" for n in range(3)))
    code = run_within(Budget(seconds), ["-q", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)])
    assert code == 0
    printed = capsys.readouterr().out
    assert ("3 passed" in printed) == (passed == 3)
    assert ("3 tests left: run `make test`" in printed) == (passed == 0)


def test_a_failure_is_a_failure_within_the_budget_too(tmp_path, capsys):
    (tmp_path / "test_fails.py").write_text("def test_0(): assert False\n")
    assert run_within(Budget(1000.0), ["-x", "--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)]) == 1
