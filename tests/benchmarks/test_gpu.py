"""The parts of benchmarks/bench_gpu.py that run without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import bench_gpu
from benchmarks.gpu import kernels as gpu_kernels
from benchmarks.gpu.checks import CHECKS, compare
from benchmarks.gpu.log import Log
from benchmarks.measuring.step_floor import Work
from models import create_model

ABSENT = ("nibabel", "openpyxl", "SimpleITK", "torchio", "nilearn")  # these packages are missing on the GPU machines


def test_it_imports_without_the_packages_of_images():
    code = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r})); import benchmarks.bench_gpu, main_pretrain"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_section_that_fails_is_logged_and_the_next_one_runs(tmp_path: Path):
    log = Log(tmp_path / "new" / "out.txt", minutes=1)
    log.section("first", 1, lambda: 1 / 0)
    log.section("second", 1, lambda: log("second ran"))
    log.section("third", 100, lambda: log("third ran"))
    text = (tmp_path / "new" / "out.txt").read_text()
    assert "FAILED first" in text
    assert "ZeroDivisionError" in text
    assert "second ran" in text
    assert "third: left out" in text
    assert "third ran" not in text


def test_a_wrong_value_and_nan_are_bad(capsys: pytest.CaptureFixture):
    expected = {"out": torch.ones(3), "du": torch.zeros(0)}
    for actual, verdict in ((1.001, "ok  "), (1.2, "BAD "), (float("nan"), "BAD ")):
        compare(Log(None, 1), "case", {"out": torch.full((3,), actual), "du": torch.zeros(0)}, expected, 0.01)
        assert capsys.readouterr().out.startswith(verdict)


def test_floor_of_a_step(monkeypatch: pytest.MonkeyPatch):
    """Products at a given rate, scans by exponentials, the rest by bytes."""
    config = create_model("vim_3d_small_patch16", img_size=160).config
    ceilings = gpu_kernels.Ceilings(copy=3000.0, product=790.0, exp=4000.0)
    monkeypatch.setattr(ceilings.__class__, "linear", lambda self, rows, inner, outer: (1.0, 1.0, 1.0))
    products, scan, memory = ceilings.step(Work(config, None, 1))
    blocks = 12 * (1 + 2 + 2 + 1)  # in_proj, x_proj and dt_proj of both directions, out_proj
    assert products == 3 * blocks + 2  # and the patch embedding, whose input needs no gradient
    assert scan == pytest.approx(12 * 2 * 1000 * 768 * 16 / 4e12 * 1e3 * (1 + gpu_kernels.BACKWARD_PER_EXP))
    assert memory > 0


def test_without_a_gpu_it_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="no GPU is visible"):
        bench_gpu.main(["--minutes", "1"])


def test_every_check_and_variant_has_a_name():
    assert {"scan-bf16", "parts-fp16", "block-fp32", "large-bf16", "model-bf16"} <= CHECKS.keys()
    assert not CHECKS.keys() & bench_gpu.WARM.keys()
    pytest.importorskip("triton")
    from ops.triton import host, scan

    for changed in gpu_kernels.VARIANTS:
        assert all(hasattr(scan, name) or hasattr(host, name) for name in changed), changed
