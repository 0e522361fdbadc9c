"""Comparisons with independent implementations: the commands parse, and the checks find planted faults."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch

import ops
from ops import causal_conv1d_fn, dispatch, selective_scan_fn, ssd_scan_fn
from tests.verification import causal_conv, influence, mamba_scan, statistics
from tests.verification.__main__ import main, options_of, parse
from tests.verification.checks import CHECKS
from tests.verification.errors import Errors
from tests.verification.options import QUICK, QUICK_LENGTH, Options
from tests.verification.peers import importable, load, stand_in
from tests.verification.tally import Skipped, Tally

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m tests\.verification (.+)$", PAGE, re.MULTILINE)

FAKE_SCAN = """
import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref

def test_selective_scan(itype, seqlen, return_last_state, has_delta_bias, delta_softplus, has_z, has_D, varBC_groups,
                        is_variable_C, is_variable_B, wtype):
    torch.manual_seed(0)
    u = torch.randn(2, 4, seqlen, device="cuda", dtype=itype, requires_grad=True)
    delta = torch.rand(2, 4, seqlen, device="cuda", dtype=itype, requires_grad=True)
    A = (-torch.rand(4, 3, device="cuda")).requires_grad_()
    B, C = (torch.randn(2, 3, seqlen, device="cuda", dtype=itype, requires_grad=True) for _ in range(2))
    out = selective_scan_fn(u, delta, A, B, C)
    expected = selective_scan_ref(u, delta, A, B, C)
    assert torch.allclose(out, expected, atol=5e-2)
"""
REFERENCE = """
import functools
import ops

{theirs}_ref = functools.partial(ops.{ours}, backend="reference")
{theirs}_fn = None
"""
FAKE_CONV = """
import pytest
import torch
from causal_conv1d.causal_conv1d_interface import causal_conv1d_fn, causal_conv1d_ref

@pytest.mark.parametrize("seqlen", [2, 5])
@pytest.mark.parametrize("itype", [torch.float32])
def test_causal_conv1d(itype, seqlen):
    x = torch.ones(1, 3, seqlen, device="cuda", dtype=itype)
    weight = torch.ones(3, 2, device="cuda")
    assert torch.equal(causal_conv1d_fn(x, weight), causal_conv1d_ref(x, weight))

test_causal_conv1d_varlen = test_causal_conv1d_varlen_padding = test_causal_conv1d
"""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_of_the_page_are_accepted_and_name_the_right_tree(command):
    given = parse(shlex.split(command, comments=True))
    (name,) = given.names
    repository = CHECKS[name].repository
    assert given.source == (Path("peers") / repository.split("/")[1] if repository else None)


def test_every_check_has_its_command_on_the_page():
    assert sorted(command.split()[0] for command in COMMANDS) == sorted(CHECKS)
    cloned = set(re.findall(r"https://github.com/(\S+) peers/", PAGE))
    assert cloned == {check.repository for check in CHECKS.values() if check.repository}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", PAGE, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link


def _mamba2_scan(**more):
    given = {"x": torch.zeros(1, 4, 2, 3), "dt": torch.zeros(1, 4, 2), "A": -torch.ones(2)}
    return ssd_scan_fn(**given, B=torch.zeros(1, 4, 1, 5), C=torch.zeros(1, 4, 1, 5), **more)


@pytest.mark.parametrize(
    "name",
    [
        "initial_states",
        "seq_idx",
        "cu_seqlens",
        "return_varlen_states",
        "dt_limit",
        "return_final_states",
        "state_dtype",
        "z",
    ],
)
def test_an_argument_that_the_page_calls_absent_is_refused_by_name(name):
    (row,) = [line for line in PAGE.splitlines() if line.startswith("|") and f"`{name}`" in line]
    assert "`TypeError`" in row
    with pytest.raises(TypeError, match=name):
        _mamba2_scan(**{name: None})


def test_other_arguments_that_the_page_calls_absent_are_refused():
    with pytest.raises(ValueError, match="chunk_size"):
        _mamba2_scan(D=64)  # as the sixth argument of mamba_ssm's function
    with pytest.raises(ValueError, match=r"D must be \(heads,\)"):
        _mamba2_scan(D=torch.ones(2, 3))
    for name in ("causal_conv1d_update", "causal_conv1d_varlen_states"):
        assert f"`{name}`" in PAGE
        assert not hasattr(ops, name)


def tree(root: Path, tests: str, test: str, module: str, source: str) -> Path:
    """A source tree with the layout of a peer."""
    for name, text in ((tests, test), (module, source)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def mamba(tmp_path):
    interface = REFERENCE.format(ours="selective_scan_fn", theirs="selective_scan")
    name = "mamba_ssm/ops/selective_scan_interface.py"
    return tree(tmp_path, "tests/ops/test_selective_scan.py", FAKE_SCAN, name, interface)


@pytest.fixture
def conv(tmp_path):
    interface = REFERENCE.format(ours="causal_conv1d_fn", theirs="causal_conv1d")
    name = "causal_conv1d/causal_conv1d_interface.py"
    return tree(tmp_path, "tests/test_causal_conv1d.py", FAKE_CONV, name, interface)


def test_their_scan_tests_run_on_ours(mamba):
    tally = mamba_scan.run(Options(mamba, quick=True), selective_scan_fn)
    assert (tally.held, tally.missed) == (QUICK, [])


def test_a_wrong_scan_is_found(mamba):
    def wrong(u, delta, A, B, C, *rest, **more):
        return selective_scan_fn(u, delta, A, C, B, *rest, **more)

    tally = mamba_scan.run(Options(mamba, quick=True), wrong)
    assert len(tally.missed) == QUICK
    assert "allclose(out" in tally.missed[0]
    assert tally.excused == 0


def test_their_convolution_tests_run_on_ours_and_find_a_wrong_one(conv):
    assert causal_conv.run(Options(conv), causal_conv1d_fn).summary() == "6 of 6"
    assert causal_conv.run(Options(conv), lambda x, weight: x).summary() == "0 of 6"


def test_an_error_of_ours_counts_as_missed(conv):
    tally = causal_conv.run(Options(conv), lambda x, weight: causal_conv1d_fn(x, weight[:1]))
    assert "ValueError: weight must be (dim, width)" in tally.missed[0]


def test_influence_is_the_hidden_attention_and_a_wrong_direction_is_found(monkeypatch):
    assert influence.run(Options(quick=True)).missed == []
    attention = influence.hidden_attention
    monkeypatch.setattr(influence, "hidden_attention", lambda *given: attention(*given).flip(2, 3))
    assert influence.run(Options(quick=True)).missed


@pytest.mark.parametrize("name", ["cropping", "orientation", "resampling"])
def test_preparation_agrees_with_peers(name):
    pytest.importorskip("monai", reason="requirements-verify.txt is not installed")
    assert main([name, "--quick"]) == 0


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="R is not installed")
def test_statistics_agree_with_r():
    try:
        assert statistics.run(Options(quick=True)).missed == []
    except Skipped as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("name", [name for name, check in CHECKS.items() if check.repository])
def test_without_its_tree_a_check_is_skipped(name, capsys, tmp_path):
    assert main([name]) == 0
    assert f"--source of {CHECKS[name].repository} is not given" in capsys.readouterr().out
    assert main([name, "--source", str(tmp_path)]) == 0
    assert "is missing: is --source the root of the right source tree?" in capsys.readouterr().out


def test_missed_cases_are_named_and_end_with_status_1(conv, capsys, monkeypatch):
    monkeypatch.setitem(dispatch._CONVS, "reference", lambda inputs: inputs.x)  # the reference of the fake tree
    assert main(["causal_conv", "--source", str(conv)]) == 1
    out = capsys.readouterr().out
    assert "causal_conv: 0 of 6 hold" in out
    assert "Missed: test_causal_conv1d: itype=float32, seqlen=2" in out


def test_the_report_names_check_tree_and_counts(conv, tmp_path):
    assert main(["causal_conv", "--source", str(conv), "--report", str(tmp_path / "results")]) == 0
    (found,) = (tmp_path / "results").glob("verification_*.md")
    assert "| causal_conv | Dao-AILab/causal-conv1d of unknown revision | 6 | 6 | 0 | 0 |" in found.read_text()


def test_only_half_precision_nearer_to_float64_is_excused():
    exact, near, far = torch.zeros(3, dtype=torch.float64), torch.full((3,), 0.1), torch.full((3,), 0.2)
    errors = Errors()
    assert errors.add(torch.bfloat16, near, far, exact)
    assert not errors.add(torch.bfloat16, far, near, exact)
    assert not errors.add(torch.float32, near, far, exact)
    assert "the smaller one in 2 of 3" in errors.notes(missed=3)[0]
    assert errors.notes(missed=0) == []


def test_near_sees_shape_size_and_nan():
    tally = Tally()
    nan = float("nan")
    tally.near("equal", {"a": ([1.0, nan, float("inf")], [1.0, nan, float("inf")])})
    tally.near("within", {"a": ([1.0, 0.0], [1.0, 0.01])}, of_largest=0.01)
    assert tally.missed == []
    tally.near("far", {"a": ([1.0, 0.0], [1.0, 0.02])}, of_largest=0.01)
    tally.near("shape", {"a": ([1.0], [1.0, 1.0])})
    tally.near("nan", {"a": ([nan], [1.0])}, atol=9)
    assert tally.missed == ["far", "shape", "nan"]
    assert tally.summary() == "2 of 5"


def test_a_grid_is_taken_whole_or_drawn_by_the_seed():
    grid = {"seqlen": [8, 64, 512], "a": [1, 2, 3, 4, 5, 6]}
    assert len(Options().chosen(grid)) == 18
    assert {case["seqlen"] for case in Options(longest=64).chosen(grid)} == {8, 64}
    assert Options(cases=5).chosen(grid) == Options(cases=5).chosen(grid) != Options(cases=5, seed=1).chosen(grid)
    assert len(Options(cases=5).chosen(grid)) == 5
    assert all(case["seqlen"] <= QUICK_LENGTH for case in Options(quick=True).chosen(grid))
    assert len(Options().chosen(grid, lambda case: case["a"] > 4)) == 6


def test_0_removes_the_limits():
    check = CHECKS["mamba_scan"]
    assert check.longest is not None
    assert options_of(check, parse(["mamba_scan"])).longest == check.longest
    assert options_of(check, parse(["mamba_scan", "--longest", "0"])).longest is None
    assert options_of(check, parse(["mamba_scan", "--sources", "peers"])).source == Path("peers/mamba")


@pytest.mark.parametrize(
    "words", [["nothing"], ["all", "--source", "x"], ["mae", "vim", "--source", "x"], ["mae", "--cases", "-1"]]
)
def test_contradicting_arguments_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        parse(words)
    assert capsys.readouterr().err


def test_modules_are_restored_after_a_peer(tmp_path):
    (tmp_path / "inner.py").write_text("value = 1\n", encoding="utf-8")
    with importable({"json": tmp_path}, (stand_in("tomllib", value=2),)):
        import json.inner  # pyright: ignore
        import tomllib

        assert (json.inner.value, tomllib.value) == (1, 2)
    import json as restored

    assert restored.loads("1") == 1
    (tmp_path / "bad.py").write_text("import no_such_package\n", encoding="utf-8")
    with pytest.raises(Skipped, match="needs a package that is not installed"):
        load(tmp_path / "bad.py")
