"""The wheel holds one package that works outside the checkout, without the checkout's names."""

import ast
import os
import subprocess
import sys
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

import commands

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("LICENSE", "README.md", "pyproject.toml", "requirements.txt", "ops", "models", "util", "vis")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that `pip install` would fill, built from a copy of the sources."""
    copy = tmp_path_factory.mktemp("checkout")
    for source in [ROOT / name for name in SOURCES] + list(ROOT.glob("*.py")):
        (copy / source.name).symlink_to(source)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(copy)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = copy.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def run(installed, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_the_wheel_holds_one_package_and_the_command(installed):
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"mamba_mae_3d"}
    entry_points = next(installed.glob("*.dist-info")) / "entry_points.txt"
    assert "mamba-mae = mamba_mae_3d.commands:main" in entry_points.read_text()


def test_every_module_and_file_of_the_checkout_is_in_the_wheel(installed):
    package = installed / "mamba_mae_3d"
    for folder in ("ops", "models", "util", "vis"):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert (package / path.relative_to(ROOT)).is_file(), path
    assert (package / "py.typed").is_file()


def test_no_module_imports_a_name_of_the_checkout(installed):
    ours = {"ops", "models", "util", "vis", "benchmarks", "tests"} | {path.stem for path in ROOT.glob("*.py")}
    for path in (installed / "mamba_mae_3d").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in ours, path
            elif isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & ours, path


def test_the_installed_package_works_where_no_checkout_is(installed, tmp_path):
    (tmp_path / "models.py").write_text("raise RuntimeError('the names of others are not ours')")
    code = (
        "import torch, mamba_mae_3d, timm; from mamba_mae_3d.models import create_model; "
        "model = create_model('vim_3d_tiny_patch8', img_size=16, depth=2, embed_dim=48); "
        "print(model(torch.zeros(1, 4, 16, 16, 16)).shape, mamba_mae_3d.__file__)"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 2])" in done.stdout
    assert str(installed) in done.stdout


def test_the_installed_command_prepares_data_in_the_working_folder(installed, tmp_path):
    made = run(
        installed, "mamba_mae_3d", "prepare", "phantom", "raw", "--subjects", "1", "--spacing", "4", cwd=tmp_path
    )
    assert made.returncode == 0, made.stderr
    assert list(tmp_path.glob("raw/brats/*/*.nii.gz"))
    missing = run(installed, "mamba_mae_3d", "pretrain", "--device", "cpu", cwd=tmp_path)
    assert missing.returncode == 2
    assert f"error: {tmp_path / 'config.ini'} is missing" in missing.stderr


def test_the_command_lists_programs_and_refuses_others(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mamba-mae"])
    commands.main()
    assert "check-maps" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["mamba-mae", "trian"])
    with pytest.raises(SystemExit, match="choose one of prepare, pretrain"):
        commands.main()


@pytest.mark.parametrize("module", [module for module, _ in commands.PROGRAMS.values()])
def test_every_program_has_a_main(module):
    assert callable(import_module(module).main)
