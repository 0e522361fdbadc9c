"""The computations of the benchmarks from their measurements."""

import math
import statistics
import subprocess

import pytest
import torch

from benchmarks import bench_scan, bench_step
from benchmarks.bench_scaling import Point, crossover, extrapolate
from benchmarks.measuring import own_process, peers
from benchmarks.measuring.own_process import Failed, call_isolated
from benchmarks.measuring.report import Report, hardware_slug
from benchmarks.measuring.step_floor import Linear, Rates, Work, floor
from benchmarks.measuring.timing import Timing, measure
from benchmarks.measuring.training_step import Case, make_step, part_of, split
from models import create_model
from tests.conftest import SMALL

MEASURED = {  # GFLOP/s (forward, dx, dW) on two AVX-512/AMX cores
    "fp32": {"in_proj": (300, 300, 290), "x_proj": (164, 149, 160), "dt_proj": (140, 150, 80)},
    "bf16": {"in_proj": (2400, 2300, 1250), "x_proj": (1261, 1262, 721), "dt_proj": (520, 900, 270)},
}


class MeasuredRates(Rates):
    def product(self, linear, precision):
        rates = MEASURED[precision].get(linear.name, MEASURED[precision]["in_proj"])
        return tuple(2e-9 * linear.rows * linear.inner * linear.outer / rate for rate in rates)


@pytest.mark.parametrize(
    ("name", "precision", "checkpointed", "seconds"),
    [
        ("mae_3d_vim_small_patch16", "fp32", False, 0.30),
        ("mae_3d_vim_small_patch8", "fp32", False, 1.9),
        ("mae_3d_vim_small_patch8", "bf16", False, 0.85),
        ("mae_3d_vim_small_patch4", "bf16", False, 6.7),
        ("mae_3d_vim_small_patch4", "fp32", True, 18.9),
        ("vim_3d_small_patch8", "fp32", False, 3.7),
        ("vim_3d_small_patch8", "bf16", False, 1.5),
    ],
)
def test_the_floor_agrees_with_a_computation_by_hand(name, precision, checkpointed, seconds):
    with torch.device("meta"):
        config = create_model(name, grad_checkpointing=checkpointed).config
    work = Work(config, 0.75 if name.startswith("mae") else None)
    assert floor(work, precision, MeasuredRates(exp=8.6, memory=28)).total == pytest.approx(seconds, rel=0.25)


@pytest.mark.parametrize("family", ["vim", "vit", "vim2", "bivim2", "vim_mha", "bivim_mha"])
@pytest.mark.parametrize("kind", ["mae_3d_{}_small_patch8", "{}_3d_small_patch8"])
def test_products_of_the_floor_are_those_of_the_model(family, kind, volume):
    fields = {**SMALL, "attention_layers": (1,) if "mha" in family else ()}
    model = create_model(kind.format(family), **fields)
    case = Case(kind.format(family), batch=2, fields=fields)
    with torch.profiler.profile(with_flops=True) as profiler:
        torch.manual_seed(0)
        with torch.no_grad():
            make_forward(model, volume)
    by_two = (
        {"aten::bmm"} if model.config.mixer == "mamba" else set()
    )  # projections of both directions; the bmm of other mixers is none
    products = {"aten::mm", "aten::addmm"} | by_two
    counted = sum(e.flops for e in profiler.key_averages() if e.key in products)
    expected = sum(2 * x.rows * x.inner * x.outer * x.count for x in case.work(model).linears())
    head = 0 if kind.startswith("mae") else 2 * 2 * SMALL["embed_dim"] * 2
    assert counted == expected + head


def test_scans_and_attention_of_the_floor_by_hand():
    def work(name, **fields):
        return Work(create_model(name, **{**SMALL, **fields}).config, None, batch=2)

    tokens, inner = 2 * 24, 2 * 48
    both, one = work("bivim2_3d_small_patch8"), work("vim2_3d_small_patch8")
    assert both.scan_elements() == 0
    assert one.ssd_gflop() == pytest.approx(1e-9 * 2 * 4 * tokens * inner * 4)  # 2 blocks, 4 flops, 4 states
    assert both.ssd_gflop() == pytest.approx(2 * one.ssd_gflop())
    hybrid = work("vim_mha_3d_small_patch8", attention_layers=(1,))
    assert hybrid.ssd_gflop() == pytest.approx(one.ssd_gflop() / 2)
    assert hybrid.attention_gflop() == pytest.approx(2 * 4e-9 * 24**2 * 16)  # 2 volumes, 2 heads of 8 channels
    plain = work("vim_3d_small_patch8")
    assert plain.scan_elements() == 2 * 2 * tokens * inner * 4
    assert (plain.ssd_gflop(), plain.attention_gflop()) == (0, 0)
    rates = MeasuredRates(exp=8.6, memory=28)
    assert floor(both, "fp32", rates).scan > floor(one, "fp32", rates).scan > floor(hybrid, "fp32", rates).scan > 0
    wider = work("vim_mha_3d_small_patch8", attention_layers=(1,), attention_head_dim=128)
    assert floor(wider, "fp32", rates).gemm > floor(hybrid, "fp32", rates).gemm


def make_forward(model, volume):
    return model(volume, 0.75, return_pred=False).loss if hasattr(model, "decoder_pred") else model(volume)


def test_checkpointing_and_precision_change_the_work():
    plain, again = (
        Work(create_model("mae_3d_vim_tiny_patch8", **SMALL, grad_checkpointing=flag).config, 0.75)
        for flag in (False, True)
    )
    assert again.traffic_bytes("fp32") > plain.traffic_bytes("fp32") > plain.traffic_bytes("bf16")
    assert sum(linear.recomputed for linear in again.linears()) > 0 == sum(x.recomputed for x in plain.linears())
    assert Linear("x", 1, 2, 3).input_gradient
    assert not next(plain.linears()).input_gradient


def test_parts_hold_what_the_model_does(volume):
    model = create_model("mae_3d_vim_small_patch8", **SMALL)
    parts, loss = split(make_step(model, Case("mae_3d_vim_small_patch8", fields=SMALL)))
    assert math.isfinite(loss)
    assert parts["gemm"] > 0
    assert parts["scan"] > 0
    assert parts["rest"] > 0
    assert part_of("mamba_mae::add_norm_backward") == "norm"
    assert part_of("mamba_mae::conv_backward") == "conv"
    assert part_of("mamba_mae::scan_backward") == "scan"
    assert part_of("mamba_mae_bimambaBackward") == "scan"
    assert part_of("mamba_mae::gather_patches") == "rest"
    assert part_of("aten::_scaled_dot_product_flash_attention_for_cpu") == "attention"


def test_step_gives_every_parameter_a_gradient():
    case = Case("vim_3d_small_patch8", "bf16", fields=SMALL)
    model = case.build()
    assert make_step(model, case)().isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_wrong_backend_is_not_timed():
    def wrong(*args, **kwargs):
        return bench_scan.backends()["reference"](*args, **kwargs) * 1.01

    with pytest.raises(ValueError, match=r"wrong in .* differs from the specification"):
        bench_scan.check({"wrong": wrong})


def test_peer_computes_the_same_mixer():
    pytest.importorskip("mambapy", reason=peers.MISSING)
    model = create_model("vim_3d_tiny_patch8", **SMALL)
    tokens = torch.randn(2, 9, SMALL["embed_dim"])
    expected = model.blocks[0].mixer(tokens)
    peers.use_mambapy(model)
    assert type(model.blocks[0].mixer).__module__ == "mambapy.vim"
    torch.testing.assert_close(model.blocks[0].mixer(tokens), expected, rtol=1e-4, atol=1e-5)
    assert bench_scan.value_error(peers.pscan_scan, torch.float32) < 1e-4


def test_a_peer_that_cannot_run_is_skipped_with_the_reason(monkeypatch):
    monkeypatch.setattr(bench_step, "mambapy_problem", lambda: peers.MISSING)
    assert "skipped: mambapy is not installed" in str(bench_step.row(Case("x", mixer="mambapy"))[2])
    assert "needs about 1e+09 GiB" in str(bench_step.row(Case("x", needs_gib=1e9))[2])


def test_a_process_that_dies_is_reported(monkeypatch):
    with pytest.raises(Failed, match="exit code 1: TypeError"):
        call_isolated(statistics.median, wrong=1)
    killed = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(own_process.subprocess, "run", lambda *args, **kwargs: killed)
    with pytest.raises(Failed, match="perhaps out of memory"):
        call_isolated(statistics.median, data=[1])


def test_a_new_process_does_not_count_our_memory():
    assert call_isolated(own_process.peak_mib) < own_process.peak_mib() / 2


def test_timing_and_crossover():
    assert Timing((1.0, 3.0, 2.0)).median == 2.0
    assert str(Timing((0.001, 0.003, 0.002))) == "2 ms (1-3, n=3)"
    calls = []
    assert len(measure(lambda: calls.append(1), repeats=3, warmup=2).seconds) == 3
    assert len(calls) == 5
    assert len(measure(lambda: None, repeats=3, budget=0.0).seconds) == 1

    def points(*pairs):
        return [Point(tokens, Timing((seconds,)), 0.0) for tokens, seconds in pairs]

    linear, square = points((100, 1.0), (1000, 10.0)), points((100, 0.1), (1000, 100.0))
    assert extrapolate(square, 10_000) == pytest.approx(1e5)
    assert extrapolate(square[:1], 10_000) is None
    assert crossover(linear, square) == pytest.approx(1000 / 10**0.5)
    assert crossover(square, linear) is None
    assert crossover(linear, points((100, 2.0), (1000, 90.0))) == 100


def test_report_is_named_after_theme_hardware_and_day(tmp_path):
    assert hardware_slug("A (B), 2 CPU cores, Linux") == "a-b-2-cpu-cores"
    report = Report("theme", "Title", "command", tmp_path)
    report.table(["a", "b"], [[1.23456, "x"]])
    path = report.write()
    assert path.name == f"theme_{report.instructions}_{report.hardware}_{report.date}.md"
    assert "| a | b |\n|---|---|\n| 1.23 | x |" in path.read_text(encoding="utf-8")
