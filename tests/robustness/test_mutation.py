"""The runner of mutants, without cosmic-ray: its files exist, and a mutant takes the place of its module."""

import importlib.util

from tests.robustness import mutation


def test_files_and_their_tests_exist():
    for path, tests in mutation.TARGETS.items():
        for name in (path, *tests):
            assert (mutation.ROOT / name).is_file(), name


def test_a_mutant_is_imported_in_place_of_its_module():
    path = "ops/arguments.py"
    source = (mutation.ROOT / path).read_text().replace('"swish")', '"swash")')
    mutant = mutation.Mutant(path, "Renamed", 5, source, 0.0)
    assert str(mutant).endswith('(None, "silu", "swish")  ->  ACTIVATIONS = (None, "silu", "swash")')
    loader = mutation._MutantLoader(mutant)
    assert loader.find_spec("ops.dispatch") is None
    spec = loader.find_spec("ops.arguments")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.ACTIVATIONS[-1] == "swash"


def test_annotations_are_no_mutants():
    one, two, other = (
        "def f(x: int | None) -> int: return x + 1",
        "def f(x: int + None) -> str: return x + 1",
        "def f(x): return x",
    )
    assert mutation._meaning(one) == mutation._meaning(two) != mutation._meaning(other)
