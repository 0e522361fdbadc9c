"""Who may import whom: the floors of the design, read from the imports of every file."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = {"ops", "models", "util", "vis", "benchmarks", "engine_pretrain", "engine_finetune"}
ALLOWED = {
    "ops": set(),
    "models": {"ops"},
    "util": set(),
    "vis": {"models", "util"},
    "benchmarks": {"ops", "models", "util"},
    "engine_pretrain": {"util"},
    "engine_finetune": {"util"},
}
PROGRAMS = {  # commands that stand on a higher floor than their neighbours
    "util/checkpoint_export.py": {"models"},
    "util/graph_export.py": {"models"},
    "util/hub_export.py": {"models"},
}
FILES = sorted(
    path
    for name in OURS
    for path in ([ROOT / f"{name}.py"] if (ROOT / f"{name}.py").exists() else (ROOT / name).rglob("*.py"))
)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_stay_on_their_floor(path):
    floor = path.relative_to(ROOT).parts[0].removesuffix(".py")
    reached = {name for name in imports(path) if name in OURS or name.startswith("main_")} - {floor}
    allowed = ALLOWED[floor] | PROGRAMS.get(path.relative_to(ROOT).as_posix(), set())
    assert reached <= allowed, f"{floor} must not import {reached - allowed}"


def test_programs_on_a_low_floor_are_imported_where_they_run_only():
    for path in FILES:
        top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
        assert not {node.module for node in top} & {name.removesuffix(".py").replace("/", ".") for name in PROGRAMS}


def test_ops_needs_nothing_but_torch_and_the_standard_library():
    third_party = {"numpy", "timm", "einops", "torchio", "scipy", "sklearn"}
    for path in (ROOT / "ops").rglob("*.py"):
        assert not third_party & set(imports(path)), path


def test_models_know_no_device_rank_or_path():
    for path in (ROOT / "models").rglob("*.py"):
        assert not {"pathlib", "os", "logging", "argparse"} & set(imports(path)), path
        assert ".cuda()" not in path.read_text(encoding="utf-8"), path


def test_every_source_file_has_its_test_file():
    """util/data/labels.py is tested by tests/test_util_data_labels.py, and so on; packages' __init__ by their parts,
    benchmarks and the kernels of ops/triton together."""
    tested = {path.stem for path in (ROOT / "tests").glob("test_*.py")}
    lacking = []
    for path in FILES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:2] if parts[:2] == ("ops", "triton") else parts
        if parts[0] != "benchmarks" and parts[-1] != "__init__" and "test_" + "_".join(parts) not in tested:
            lacking.append(str(path.relative_to(ROOT)))
    assert not lacking
