import contextlib
import ctypes.util
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ops.cpu import build as cpu_build
from ops.cpu import library as cpu_library

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
    monkeypatch.setenv("MAMBA_MAE_CACHE", str(tmp_path / "cache"))
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


def _damage_truncate(library: Path) -> None:
    os.truncate(library, library.stat().st_size // 2)


def _damage_zero(library: Path) -> None:
    library.write_bytes(bytes(library.stat().st_size))


def _damage_replace(library: Path) -> None:
    library.write_text("other\n")  # as large as the library of WRITE


def _damage_record(library: Path) -> None:
    library.with_suffix(".json").write_text("[" * 100_000)


def _damage_mode(library: Path) -> None:
    library.chmod(0o666)


def _damage_link(library: Path) -> None:
    library.rename(library.with_suffix(".other"))
    library.symlink_to(library.with_suffix(".other"))


DAMAGES = [
    _damage_truncate,
    _damage_zero,
    _damage_replace,
    _damage_record,
    _damage_mode,
    _damage_link,
    lambda library: library.write_bytes(b""),
    lambda library: library.with_suffix(".json").unlink(),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_library_is_built_again(compiler, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture):
    compiler(WRITE)
    library = cpu_build.library_path()
    damage(library)
    assert cpu_build.library_path() == library
    assert "compiling it again" in caplog.text
    assert library.read_text() == "built\n"
    assert len(compiler.calls()) == 2
    cpu_build.library_path()
    assert len(compiler.calls()) == 2


def test_a_library_of_another_user_is_not_taken(compiler, monkeypatch: pytest.MonkeyPatch):
    compiler(WRITE)
    library = cpu_build.library_path()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    stat = os.lstat(library)
    if stat.st_uid == 0:  # root's libraries are as good as ours
        os.chown(library, 1234, -1)
    cpu_build.library_path()
    assert len(compiler.calls()) == 2


def test_where_others_can_write_each_user_has_a_folder(compiler, tmp_path: Path):
    compiler(WRITE)
    shared = cpu_build.cache_folder()
    shared.mkdir()
    shared.chmod(0o777)
    library = cpu_build.library_path()
    assert library.parent == shared / f"user_{os.geteuid()}"
    assert library.parent.stat().st_mode & 0o777 == 0o700
    assert library.stat().st_mode & 0o777 == 0o700
    library.parent.chmod(0o777)
    with pytest.raises(cpu_build.BuildError, match="others can write to it"):
        cpu_build.library_path()


def test_a_good_library_needs_no_compiler(compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    compiler(WRITE)
    library = cpu_build.library_path()
    cpu_build.cache_folder().chmod(0o500)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert cpu_build.library_path() == library  # CXX is still there
    monkeypatch.delenv("CXX")
    assert cpu_build.library_path() == library
    monkeypatch.setattr(cpu_build, "_cpu_flags", lambda: "another cpu")
    with pytest.raises(cpu_build.BuildError, match=r"install g\+\+ or set CXX"):
        cpu_build.library_path()


def test_a_failing_compiler_leaves_the_good_library(compiler, monkeypatch: pytest.MonkeyPatch):
    compiler(WRITE)
    library = cpu_build.library_path()
    compiler("exit 1")
    monkeypatch.setenv("CXX", f"{os.environ['CXX']} --other")  # another compiler, so another library
    assert cpu_build.library_path() == library


def test_the_compiler_may_have_a_launcher(compiler, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    compiler(WRITE)
    launcher = tmp_path / "ccache"
    launcher.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/launched\nexec "$@"\n')
    launcher.chmod(0o755)
    monkeypatch.setenv("CXX", f"{launcher} {os.environ['CXX']}")
    assert cpu_build.library_path().exists()
    assert "-o" in (tmp_path / "launched").read_text()


def test_a_compiler_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setenv("CXX", "no_such_compiler -x")
    with contextlib.suppress(cpu_build.BuildError):  # if there is no other one either
        cpu_build._compiler()
    assert "no program no_such_compiler" in caplog.text


def test_a_compiler_that_cannot_be_started(compiler, tmp_path: Path):
    compiler(WRITE)
    (tmp_path / "c++").write_bytes(b"\x7fELF and nothing more")
    with pytest.raises(cpu_build.BuildError, match="cannot be started"):
        cpu_build.library_path()


def test_a_lock_that_is_a_link_is_refused(compiler, tmp_path: Path):
    compiler(WRITE)
    library = cpu_build.library_path()
    library.unlink()
    (tmp_path / "victim").write_text("precious")
    library.with_suffix(".lock").unlink()
    library.with_suffix(".lock").symlink_to(tmp_path / "victim")
    with pytest.raises(cpu_build.BuildError, match="MAMBA_MAE_CACHE"):
        cpu_build.library_path()
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_library_without_our_functions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = ctypes.util.find_library("m")
    if found is None:
        pytest.skip("no library to load")
    monkeypatch.setattr(cpu_library, "library_path", lambda: found)
    with pytest.raises(cpu_build.BuildError, match="no library of these kernels"):
        cpu_library._load()
