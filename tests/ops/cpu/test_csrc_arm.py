"""The kernels' sources on ARM: cross-compiled, and run by an emulator, if this machine has both.

Debian and Ubuntu: apt install g++-aarch64-linux-gnu qemu-user
"""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ops.cpu.build import FLAGS, SOURCES, UNITS

CROSS, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
ROOT_OF_ARM = "/usr/aarch64-linux-gnu"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-Wno-unknown-pragmas")
DRIVER = """
#include "scan.h"
#include <cstdio>
#include <vector>
extern "C" void scan_forward(const Scan*);
extern "C" void scan_backward(const Scan*);

int main() {
    const int64_t L = 40, I = 6, N = 5;
    uint32_t seed = 1;
    const auto values = [&](int64_t count, float low, float high) {
        std::vector<float> x(count);
        for (float& v : x) v = low + (high - low) * ((seed = seed * 1664525u + 1013904223u) >> 8) / 16777216.0f;
        return x;
    };
    auto u = values(L * I, -1, 1), delta = values(L * I, -4, 1), z = values(L * I, -3, 3), A = values(I * N, -4, -0.1);
    auto B = values(L * N, -1, 1), C = values(L * N, -1, 1), D = values(I, -1, 1), dout = values(L * I, -1, 1);
    std::vector<float> out(L * I), du(L * I), ddelta(L * I), dz(L * I), dA(I * N), dD(I), dbias(I);
    std::vector<float> dB(L * N), dC(L * N), checkpoints(4 * 4 * N * 16);
    const auto sequence = [&](std::vector<float>& x) { return Sequence{x.data(), 0, L * I, I}; };
    const auto matrix = [&](std::vector<float>& x) { return Matrix{x.data(), 0, L * N, L * N, N}; };
    Scan s{};
    s.directions = s.batch = s.groups = s.threads = s.splits = s.softplus = 1;
    s.length = L, s.channels = I, s.states = N, s.factor = 1;
    s.u = sequence(u), s.delta = sequence(delta), s.z = sequence(z), s.out = sequence(out);
    s.A = A.data(), s.D = D.data(), s.B = matrix(B), s.C = matrix(C), s.checkpoints = checkpoints.data();
    scan_forward(&s);
    for (float v : out) std::printf("%.9g ", v);
    s.out = Sequence{};
    s.dout = sequence(dout), s.du = sequence(du), s.ddelta = sequence(ddelta), s.dz = sequence(dz);
    s.dA = dA.data(), s.dD = dD.data(), s.dbias = dbias.data(), s.dB = matrix(dB), s.dC = matrix(dC);
    scan_backward(&s);
    for (auto* x : {&du, &ddelta, &dz, &dA, &dD, &dbias, &dB, &dC})
        for (float v : *x) std::printf("%.9g ", v);
}
"""


@pytest.fixture(scope="module")
def cross_compiler():
    if shutil.which(CROSS) is None:
        pytest.skip(f"{CROSS} is not installed")
    return CROSS


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_compiles_without_a_warning(cross_compiler, unit: str):
    done = subprocess.run(
        [cross_compiler, *FLAGS, *WARNINGS, "-fopenmp", "-fsyntax-only", str(SOURCES / unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_values_and_gradients_are_those_of_this_machine(cross_compiler, tmp_path: Path):
    """The scan, which uses the most instructions, compiled for both processors."""
    here = shutil.which("g++")
    if shutil.which(EMULATOR) is None or here is None:
        pytest.skip(f"{EMULATOR} or g++ is not installed")
    driver = tmp_path / "driver.cpp"
    driver.write_text(DRIVER)
    outputs = []
    for compiler, options, runner in (
        (here, ["-march=native"], []),
        (cross_compiler, ["-static"], [EMULATOR, "-L", ROOT_OF_ARM]),
    ):
        program = tmp_path / Path(compiler).name
        units = [str(driver), *(str(SOURCES / f"scan_{pass_}.cpp") for pass_ in ("forward", "backward"))]
        command = [compiler, "-std=c++17", "-O1", *options, f"-I{SOURCES}", *units, "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        printed = subprocess.run([*runner, str(program)], capture_output=True, text=True, check=True).stdout
        outputs.append(np.array(printed.split(), dtype=float))
    native, arm = outputs
    assert len(native) > 1000
    assert np.abs(native).max() > 0.1
    np.testing.assert_allclose(arm, native, rtol=2e-5, atol=2e-6)
