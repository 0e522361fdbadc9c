"""What a CPU computes in where half precision does not pay; no timing decides anything here."""

import logging
from dataclasses import replace

import pytest
import torch
from torch.overrides import TorchFunctionMode

from ops.cpu.backend import PRECISIONS
from util.distributed.world import World
from util.runs import write_json
from util.training import precision as half
from util.training.optim import DTYPES
from util.training.precision import OF_KERNELS, Precision, choose, instruction_set, precision_of_run, slowdown, this_cpu

CPU, ALONE = torch.device("cpu"), World(0, 1, torch.device("cpu"))


def slow(precision):
    return 6.25


def fast(precision):
    return 0.4


def never(precision):
    raise AssertionError("measured where nothing depends on it")


@pytest.mark.parametrize("asked", ["bf16", "fp16"])
def test_where_it_does_not_pay_all_is_float32_and_one_warning_says_how_slow_it_is(asked, caplog):
    found = choose(asked, CPU, measure=slow)
    assert found == Precision(asked, "fp32", 6.25, this_cpu())
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"--precision {asked}: {asked} products take 6.2 times as long as float32's" in record.message


def test_where_it_pays_it_is_used_and_nothing_is_said(caplog):
    assert choose("bf16", CPU, measure=fast) == Precision("bf16", "bf16", 0.4, this_cpu())
    assert choose("bf16", CPU, measure=lambda precision: 1.0).used == "fp32"  # nothing gained, accuracy lost
    assert len(caplog.records) == 1


def test_float16_is_float32_on_every_cpu_since_the_kernels_do_not_know_it(caplog):
    assert choose("fp16", CPU, measure=fast) == Precision("fp16", "fp32", 0.4, this_cpu())
    (record,) = caplog.records
    assert "fp16 products take 0.4 times as long as float32's" in record.message
    assert "the scan's kernels do not support fp16 there" in record.message
    assert {torch.float32, *(DTYPES[name] for name in OF_KERNELS)} == set(PRECISIONS)  # of ops/cpu/backend.py


def test_float32_and_gpus_are_not_measured(caplog):
    assert choose("fp32", CPU, measure=never) == Precision("fp32", "fp32")
    assert choose("bf16", torch.device("cuda"), measure=never) == Precision("bf16", "bf16")
    assert not caplog.records


@pytest.mark.parametrize(("used", "factor"), [("fp32", 1.02), ("bf16", 0.98)])
def test_a_run_that_goes_on_on_the_same_cpu_keeps_its_precision(tmp_path, used, factor):
    kept = Precision("bf16", used, factor, this_cpu())
    write_json(tmp_path / "config.json", {"precision": kept.plain()})
    assert precision_of_run("bf16", ALONE, tmp_path, measure=never) == kept


def test_on_another_cpu_it_is_measured_again_and_a_change_is_said(caplog):
    kept = Precision("bf16", "fp32", 6.0, "a CPU of the past, AVX2")
    assert choose("bf16", CPU, kept=kept, measure=fast).used == "bf16"
    assert "bf16 is in use from here on; until now this run computed in fp32" in caplog.text
    caplog.clear()
    assert choose("bf16", CPU, kept=replace(kept, used="bf16"), measure=slow).used == "fp32"
    (record,) = caplog.records
    assert "until now this run computed in bf16" in record.message
    caplog.clear()
    assert choose("bf16", CPU, kept=replace(kept, asked="fp16"), measure=fast).used == "bf16"  # asked for now
    assert not caplog.records


def test_runs_without_a_record_are_measured(tmp_path):
    assert precision_of_run("bf16", ALONE, None, measure=fast).used == "bf16"
    assert precision_of_run("bf16", ALONE, tmp_path, measure=fast).used == "bf16"
    write_json(tmp_path / "config.json", {"kind": "pretrain"})
    assert precision_of_run("bf16", ALONE, tmp_path, measure=slow).used == "fp32"


@pytest.fixture
def unmeasured():
    slowdown.cache_clear()
    yield
    slowdown.cache_clear()


def test_the_factor_is_half_precision_over_float32_and_measured_once(monkeypatch, unmeasured):
    calls = []

    def seconds(dtype):
        calls.append(dtype)
        return {torch.bfloat16: 3.0, torch.float32: 0.5}[dtype]

    monkeypatch.setattr(half, "_seconds", seconds)
    assert slowdown("bf16") == slowdown("bf16") == 6
    assert len(calls) == 2


class Seen(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.products = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if (name := func.__name__.strip("_")) in ("linear", "matmul", "bmm"):
            self.products.append((name, out.dtype))
        return out


def test_linear_layers_gradients_and_batches_are_timed_even_within_autocast(unmeasured):
    with Seen() as seen, torch.autocast("cpu", torch.bfloat16):
        assert slowdown("fp16") > 0
    assert set(seen.products) == {
        (name, dtype) for name in ("linear", "matmul", "bmm") for dtype in (torch.float16, torch.float32)
    }


def test_the_instruction_set_is_part_of_the_cpu():
    assert instruction_set().startswith(torch.backends.cpu.get_cpu_capability())
    assert this_cpu().endswith(instruction_set())
