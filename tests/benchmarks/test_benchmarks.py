"""Every benchmark runs at tiny sizes and writes its results. No test depends on a timing."""

import re
from functools import partial

import pytest
import torch

from benchmarks import bench_data, bench_scaling, bench_scan, bench_statistics, bench_step
from benchmarks.measuring import machine_limits
from benchmarks.measuring.report import Report
from models import list_models
from util.training.precision import decide, instruction_set

FACTS = ("- Command: `python -m benchmarks.", "- Machine: ", "threads, OMP_WAIT_POLICY=", "## Ceilings of this run")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Starting processes takes long. tests/benchmarks/test_measuring.py tests that they are used."""
    for program in (bench_step, bench_scaling):
        monkeypatch.setattr(program, "call_isolated", lambda function, **arguments: function(**arguments))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("program", "theme", "pattern"),
    [
        (machine_limits, "ceilings", r"GB/s.*torch.exp2: \d"),
        (bench_scan, "scan", r"\| 32 x 32 \| chunked \| float32 \| \d.* ms .*n=\d+\)"),
        (bench_step, "step", r"\| mae_3d_vim_tiny_patch8, .* \| fp32 \| \d.*n=2\) \| \d+ \|"),
        (bench_data, "data", r"\| loader \| \d.*\n\| device \| \d"),
        (bench_scaling, "scaling", r"\| 64 \| \d.*n=\d\) \| \d"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalpha() else "",
)
def test_program_writes_its_results(tmp_path, program, theme, pattern):
    program.main(["--quick", "--out", str(tmp_path)])
    (path,) = tmp_path.glob("*.md")
    assert re.fullmatch(theme + r"_[a-z0-9]+_[a-z0-9-]+_\d{4}-\d\d-\d\d\.md", path.name)
    text = path.read_text(encoding="utf-8")
    for fact in FACTS:
        assert fact in text
    assert re.search(pattern, text), text
    assert "--quick" in text.split("\n")[2]
    assert (theme == "scaling") == bool(list(tmp_path.glob("*.png")))


def test_statistics_agree_with_independent_computations(tmp_path):
    bench_statistics.main(["--quick", "--out", str(tmp_path)])
    text = next(tmp_path.glob("statistics_*.md")).read_text(encoding="utf-8")
    rows = dict(re.findall(r"\| ([^|]+) \| [^|]+ \| 5 \| (\d\.\de-\d+|0\.0e\+00) \|", text))
    assert len(rows) == 7
    assert all(float(gap) < 1e-9 for gap in rows.values())
    assert "| 155 + 312 | 0.856 |" in text


def products_take(factor):
    """`bench_step.worthwhile` on a CPU whose half precision takes `factor` times as long as float32."""
    return partial(bench_step.worthwhile, decide=partial(decide, measure=lambda name: factor))


def test_step_leaves_out_precisions_slower_than_float32_and_reports_that_once(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_step, "worthwhile", products_take(6.25))
    monkeypatch.setattr(bench_step, "add_ceilings", lambda options: None)
    monkeypatch.setattr(bench_step, "row", lambda case: [case.title, case.precision])
    bench_step.main(["--quick", "--models", "vim_3d_tiny_patch8", "mae_3d_vim_tiny_patch8", "--precision", "fp32",
                     "bf16", "--out", str(tmp_path)])  # fmt: skip
    text = next(tmp_path.glob("*.md")).read_text(encoding="utf-8")
    assert text.count("No cases in bf16: bf16 products take 6.2 times as long as float32's") == 1
    assert "| bf16 |" not in text
    assert text.count("| fp32 |") == 2


def test_results_name_the_instruction_sets(tmp_path, monkeypatch):
    monkeypatch.setenv("MAMBA_MAE_ISA", "x86-64-v3")
    report = Report("theme", "Title", "command", tmp_path)
    text = report.write().read_text(encoding="utf-8")
    assert f"PyTorch: {instruction_set()}; our kernels: x86-64-v3" in text
    assert report.path().name.startswith(f"theme_{torch.backends.cpu.get_cpu_capability().lower()}_")


def test_step_accepts_any_registered_model(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_step, "worthwhile", products_take(0.5))
    monkeypatch.setattr(bench_step, "add_ceilings", lambda options: None)
    bench_step.main(
        ["--quick", "--models", "vit_3d_small_patch8", "--precision", "bf16", "--threads", "1", "--out", str(tmp_path)]
    )
    text = next(tmp_path.glob("*.md")).read_text(encoding="utf-8")
    assert re.search(r"\| vit_3d_small_patch8.* \| bf16 \| \d", text)
    assert "- 1 threads" in text


def test_default_cases_name_registered_models():
    assert {case.model for case in bench_step.DEFAULT} <= set(list_models())
    assert set(bench_scaling.FAMILIES.values()) <= set(list_models())


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(ValueError, match='did you mean "mae_3d_vim_small_patch8"'):
        bench_step.main(["--models", "mae_3d_vim_smal_patch8", "--out", str(tmp_path)])
