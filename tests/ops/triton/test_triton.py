"""Kernels of ops/triton without a GPU: run by Triton's interpreter, and compiled for several GPUs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: it comes with torch on Linux")

from triton.backends.compiler import GPUTarget

from ops.triton import add_norm, conv, patches, scan
from tests.helpers.triton_compile import Compiled, compiled

ROOT = Path(__file__).resolve().parents[3]


def test_values_and_gradients_in_the_interpreter():
    command = [sys.executable, "-m", "pytest", "tests/helpers/interpreted_triton.py", "-W", "ignore::RuntimeWarning"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]


def scan_launches(target: GPUTarget, with_backward: bool) -> list[Compiled]:
    """Every kernel of one direction's scan, in bfloat16, with the gate."""
    directions, length, states, inner, dtype = 1, 100, 16, 768, torch.bfloat16
    sequence = torch.zeros(directions, 1, length, inner, dtype=dtype)
    matrices = torch.zeros(directions, 1, 1, length, 2 * states)
    z = torch.zeros(1, length, 2 * inner, dtype=dtype)[..., inner:]
    A, channels = torch.zeros(directions, inner, states), torch.zeros(directions, inner)
    B, C = matrices.split(states, dim=-1)
    call = scan.ScanArguments(
        sequence, sequence, A, B, C, channels, z, channels, softplus=True, reverse=False, factor=0.5
    )

    def run() -> None:
        out = torch.zeros(1, length, inner, dtype=dtype)
        starts, _ = scan.forward(call, out)
        if with_backward:
            scan.backward(call, out, starts, torch.zeros_like(z), torch.zeros_like(out))

    return compiled(target, run)


@pytest.mark.parametrize(
    ("target", "with_backward", "most_spilled"),
    [(("cuda", 90, 32), True, 16), (("cuda", 80, 32), False, 0), (("hip", "gfx942", 64), False, 0)],
    ids=["sm_90", "sm_80", "gfx942"],
)
def test_the_scan_compiles_with_few_spills(target: tuple[str, int | str, int], with_backward: bool, most_spilled: int):
    """most_spilled: bytes that one thread stores because a kernel has too few registers; unknown on AMD."""
    made = scan_launches(GPUTarget(*target), with_backward)
    backward = {"adjoint_local", "scan_main"} if with_backward else set()
    assert {kernel.name for kernel in made} == {"scan_local", "scan_carry", "scan_final"} | backward
    for kernel in made:
        assert kernel.spilled <= most_spilled, f"{kernel.name}: {kernel.spilled} bytes spilled"
        assert kernel.shared <= 48 << 10, f"{kernel.name}: {kernel.shared} bytes of shared memory"


def test_the_other_kernels_compile():
    """The kernels of patches, and those of a block except the scan. They are small, so one GPU represents all."""
    made = compiled(GPUTarget("cuda", 90, 32), other_launches)
    assert {kernel.name for kernel in made} == {
        "add_norm_forward", "add_norm_backward", "conv_forward", "conv_backward", "gather_rows", "compare_rows",
        "scale_rows"
    }  # fmt: skip
    assert not any(kernel.spilled for kernel in made)


def other_launches() -> None:
    x, wide = torch.zeros(1, 20, 384, dtype=torch.bfloat16), torch.zeros(1, 20, 384)
    _, total = add_norm.forward(x, wide, wide, wide[0, 0], torch.ones(1), 1e-5, torch.bfloat16)
    add_norm.backward(x, total, total, wide, wide[0, 0], torch.ones(1), 1e-5, torch.bfloat16)
    weight, out = torch.zeros(2, 384, 4), torch.zeros(2, 1, 20, 384, dtype=torch.bfloat16)
    conv.forward(x, weight, weight[..., 0].contiguous(), True, False, out)
    conv.backward(out, x, weight, weight[..., 0].contiguous(), True, False, torch.zeros_like(x))
    volume, ids = torch.zeros(1, 4, 16, 16, 16), torch.zeros(1, 3, dtype=torch.long)
    patches.gather_rows_of(volume, ids, 4, True, torch.bfloat16)
    pred = torch.zeros(1, 3, 256, dtype=torch.bfloat16)
    _, difference = patches.compute_error(pred, volume, ids, 4, True)
    patches.scaled(torch.ones(()), difference)
