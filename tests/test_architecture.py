"""Who may import whom: the floors and rooms of the code, read from the imports of every file."""

import ast
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("ops", "models", "util", "vis")  # each may import what lies below it
ENGINES = ("engine_pretrain", "engine_finetune")
PROGRAMS = ("commands", "main_pretrain", "main_cr_finetune", "prepare_data", "probe", "compare", "predict")
# The parts of util that build models; all others work on any torch module, and start without importing ours.
BUILDS_MODELS = (
    "util/inference/",
    "util/export/",
    "util/checkpoint/matching.py",
    "util/checkpoint/inspection.py",
)
MOST_MODULES = 15  # of one folder
PACKAGES = (*FLOORS, "benchmarks")
FILES = sorted(
    [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    + [path for name in (*ENGINES, *PROGRAMS) if (path := ROOT / f"{name}.py").exists()]
)
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}


def name_of(path):
    return str(path.relative_to(ROOT))


def imports(path):
    """Dotted names of everything that a file imports: `from a import b` gives a.b where that is a module, else a."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


IMPORTS = {module: {name for name in imports(path) if name in MODULES} - {module} for module, path in MODULES.items()}


def circle(arrows):
    """Names along one circle of `arrows` ({name: names it points to}), or None."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(arrows.get(name, ())):
            if found := visit(other):
                return found
        path.pop()
        done.add(name)
        return None

    return next((found for name in sorted(arrows) if (found := visit(name))), None)


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) is None


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_stay_on_their_floor(path):
    floor = path.relative_to(ROOT).parts[0].removesuffix(".py")
    reached = {name.split(".")[0] for name in imports(path)} & {*PACKAGES, *ENGINES, *PROGRAMS, "tests"} - {floor}
    if floor in FLOORS:
        allowed = set(FLOORS[: FLOORS.index(floor)])
        if floor == "util" and not name_of(path).startswith(BUILDS_MODELS):
            allowed -= {"models"}
    elif floor in ENGINES:
        allowed = {"ops", "models", "util"}
    elif floor == "benchmarks":
        allowed = {*FLOORS, *ENGINES, *PROGRAMS} - {"vis"}
    else:
        allowed = {*FLOORS, *ENGINES}
    assert reached <= allowed, f"{floor} must not import {reached - allowed}"


def test_modules_import_each_other_in_one_direction():
    assert circle(IMPORTS) is None


def test_rooms_import_each_other_in_one_direction():
    """Folders that lie side by side; a folder and those inside it belong together. A __main__ is a program."""
    rooms = defaultdict(set)
    for module, reached in IMPORTS.items():
        home = MODULES[module].parent
        for other in reached if MODULES[module].name != "__main__.py" else ():
            room = MODULES[other].parent
            if not (home.is_relative_to(room) or room.is_relative_to(home)):
                rooms[name_of(home)].add(name_of(room))
    assert circle(rooms) is None


def test_no_folder_is_a_flat_drawer():
    modules = Counter(name_of(path.parent) for path in FILES if path.name != "__init__.py" and path.parent != ROOT)
    assert {folder: count for folder, count in modules.items() if count > MOST_MODULES} == {}


def test_package_faces_hold_imports_only():
    for path in FILES:
        if path.name == "__init__.py":
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                is_all = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
                is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
                assert is_all or is_text or isinstance(node, ast.Import | ast.ImportFrom), (
                    f"{path}: {ast.unparse(node)}"
                )


def test_what_builds_models_is_imported_where_it_runs_only():
    """Programs that read and write checkpoints start without torch models: inside a function, not at the top."""
    builders = {module for module, path in MODULES.items() if name_of(path).startswith("util/export/")}
    for module, path in MODULES.items():
        if module not in builders:
            top = [
                node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)
            ]
            assert not {node.module for node in top} & builders, path


def test_ops_needs_nothing_but_torch_and_the_standard_library():
    third_party = {"numpy", "timm", "einops", "torchio", "scipy", "sklearn"}
    for path in (ROOT / "ops").rglob("*.py"):
        assert not third_party & {name.split(".")[0] for name in imports(path)}, path


def test_models_know_no_device_rank_or_path():
    for path in (ROOT / "models").rglob("*.py"):
        assert not {"pathlib", "os", "logging", "argparse"} & set(imports(path)), path
        assert ".cuda()" not in path.read_text(encoding="utf-8"), path


def test_files_explain_the_shapes_in_their_names():
    """A name such as tokens_BLE ends in the letters of its axes: the file's docstring says what each of them means."""
    unexplained = []
    for path in [path for floor in ("ops", "models") for path in (ROOT / floor).rglob("*.py")]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
        suffixes = [name.rsplit("_", 1)[1] for name in names if "_" in name and not name.isupper()]
        axes = "".join(suffix for suffix in suffixes if re.fullmatch("[BLDK][A-Zcx0-9]+", suffix))
        explained = set(re.findall(r"\b[A-Z]\b", ast.get_docstring(tree) or ""))
        if missing := {axis for axis in axes if axis.isupper()} - explained:
            unexplained.append(f"{name_of(path)}: {', '.join(sorted(missing))}")
    assert not unexplained


def test_every_source_file_has_its_test_file():
    """util/data/labels.py is tested by tests/util/data/test_labels.py, and so on; scripts by tests/programs, packages'
    __init__ by their parts, benchmarks and the kernels of ops/triton together."""
    lacking = []
    for path in FILES:
        home = path.relative_to(ROOT).parent
        if home.parts[:1] == ("benchmarks",) or home.parts[:2] == ("ops", "triton") or path.name == "__init__.py":
            continue
        folder = ROOT / "tests" / (home if home.parts else "programs")
        if not (folder / f"test_{path.name}").exists() and not (
            path.name == "__main__.py" and (folder / "test_command.py").exists()
        ):
            lacking.append(name_of(path))
    assert not lacking


def test_every_test_file_has_its_place():
    """Test files lie in folders like those of the code; only this one stands alone."""
    assert [path.name for path in (ROOT / "tests").glob("test_*.py")] == ["test_architecture.py"]
