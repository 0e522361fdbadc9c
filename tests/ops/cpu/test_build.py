import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ops.cpu import build as cpu_build

FAKE = """#!/bin/sh
if [ "$1" = --version ]; then echo fake 1; exit 0; fi
echo "$@" >> {log}
{action}
"""
WRITE = 'while [ "$1" != -o ]; do shift; done; echo built > "$2"'


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """make(action) installs a compiler that runs a shell action; make.calls() are its command lines."""
    log = tmp_path / "log"

    def make(action: str) -> None:
        script = tmp_path / "c++"
        script.write_text(FAKE.format(log=log, action=action))
        script.chmod(0o755)
        monkeypatch.setenv("CXX", str(script))

    make.calls = lambda: log.read_text().splitlines() if log.exists() else []  # pyright: ignore
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path / "cache"))
    return make


def test_built_once_and_logged_once(compiler, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, logger="ops.cpu.build")
    compiler(WRITE)
    first = cpu_build.library_path()
    assert cpu_build.library_path() == first
    assert first.read_text() == "built\n"
    assert len(compiler.calls()) == 1
    assert len(caplog.records) == 1
    assert not list(first.parent.glob("tmp*"))


def test_another_cpu_or_source_is_another_library(compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("MAMBA_MAE_ISA", raising=False)
    compiler(WRITE)
    first = cpu_build.library_path()
    monkeypatch.setattr(cpu_build, "_cpu_flags", lambda: "another cpu")
    second = cpu_build.library_path()
    sources = tmp_path / "csrc"
    sources.mkdir()
    (sources / "scan.cpp").write_text("// changed")
    monkeypatch.setattr(cpu_build, "SOURCES", sources)
    assert len({first, second, cpu_build.library_path()}) == 3


def test_flags_that_the_compiler_refuses_are_dropped(compiler, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("MAMBA_MAE_ISA", raising=False)
    compiler('case "$*" in *native*|*fopenmp*) exit 1;; esac; ' + WRITE)
    assert cpu_build.library_path().exists()
    assert "native" in compiler.calls()[0]
    assert "native" not in compiler.calls()[-1]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch):
    """machine(name, flags, isa): a CPU, and what MAMBA_MAE_ISA asks for."""

    def imitate(name: str, flags: str, isa: str) -> None:
        monkeypatch.setattr(cpu_build.platform, "machine", lambda: name)
        monkeypatch.setattr(cpu_build, "_cpu_flags", lambda: f"flags : {flags}\nvendor_id : x")
        monkeypatch.setenv("MAMBA_MAE_ISA", isa)

    return imitate


AVX2 = " ".join(cpu_build.LEVELS["x86-64-v3"])


def test_one_variable_decides_for_which_cpu(compiler, machine):
    compiler(WRITE)
    built = set()
    for isa, flag in (("", "native"), ("native", "native"), ("x86-64-v2", "x86-64-v2"), ("x86-64-v3", "x86-64-v3")):
        machine("x86_64", AVX2, isa)
        built.add(cpu_build.library_path())
        assert f"-march={flag} " in compiler.calls()[-1]
    assert len(built) == len(compiler.calls()) == 3
    machine("aarch64", "", "")
    cpu_build.library_path()
    assert "-mcpu=native " in compiler.calls()[-1]


def test_a_named_instruction_set_is_never_replaced_by_another(compiler, machine):
    compiler("echo what is that march >&2; exit 1")
    machine("x86_64", AVX2, "x86-64-v3")
    with pytest.raises(cpu_build.BuildError, match="what is that march"):
        cpu_build.library_path()
    assert all("-march=x86-64-v3 " in call for call in compiler.calls())


@pytest.mark.parametrize(
    ("name", "isa", "words"),
    [
        ("x86_64", "avx2", r'"avx2" is no instruction set: set x86-64-v2, .* or native'),
        ("x86_64", "x86-64-v4", "x86-64-v4 cannot run here, without avx512bw, .*: unset it"),
        ("aarch64", "x86-64-v2", "without an x86 processor: unset it"),
    ],
)
def test_an_instruction_set_that_cannot_be_is_refused(compiler, machine, name: str, isa: str, words: str):
    compiler(WRITE)
    machine(name, AVX2, isa)
    with pytest.raises(ValueError, match=words):
        cpu_build.library_path()
    assert not compiler.calls()


def test_the_output_of_a_failing_compiler_is_quoted(compiler):
    compiler("echo no such header >&2; exit 1")
    with pytest.raises(cpu_build.BuildError, match="no such header"):
        cpu_build.library_path()
    assert not list(cpu_build.cache_folder().glob("*.so"))


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(cpu_build.BuildError, match=r"install g\+\+ or set CXX"):
        cpu_build.library_path()


def test_a_cache_that_cannot_be_written(compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    compiler(WRITE)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(cpu_build.BuildError, match="MAMBA_MAE_CACHE"):
        cpu_build.library_path()


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch):
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MAMBA_MAE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_build.Path, "home", home)
    with pytest.raises(cpu_build.BuildError, match="MAMBA_MAE_CACHE"):
        cpu_build.cache_folder()


def test_a_compiler_that_hangs(compiler, monkeypatch: pytest.MonkeyPatch):
    compiler("exec sleep 5")
    monkeypatch.setattr(cpu_build, "TIMEOUT_S", 0.2)
    with pytest.raises(cpu_build.BuildError, match="took more than"):
        cpu_build.library_path()


def test_two_processes_build_once(compiler):
    compiler("sleep 0.5; " + WRITE)
    code = f"import runpy; print(runpy.run_path({cpu_build.__file__!r})['library_path']())"  # without importing torch
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ) for _ in range(2)]
    paths = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(paths) == 1
    assert len(compiler.calls()) == 1
