"""Every recipe runs: its shell is valid, and the programs it starts take its options."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

import main_cr_finetune
import main_pretrain

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.sh"))
PARSERS = {"main_pretrain.py": main_pretrain.parse, "main_cr_finetune.py": main_cr_finetune.parse}
BENCHMARKS = {"benchmarks.bench_pretraining"}
TARGETS = set((ROOT / "Makefile").read_text().split(".PHONY: ")[1].splitlines()[0].split())


@pytest.fixture
def started(tmp_path):
    """Commands that a script starts, with stand-ins in place of programs."""
    for name in ("torchrun", "python", "make"):
        (tmp_path / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "{name} $*" >> {tmp_path}/started\n')
        (tmp_path / name).chmod(0o755)

    def run(script):
        (tmp_path / "started").unlink(missing_ok=True)
        path = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        subprocess.run(["bash", script], env=path, cwd=tmp_path, check=True)
        return [shlex.split(line) for line in (tmp_path / "started").read_text().splitlines()]

    return run


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_programs_take_what_the_recipe_says(recipe, started):
    for command in started(recipe):
        if command[0] == "make":
            assert set(command[1:]) <= TARGETS
        elif command[0] == "torchrun":
            script = next(part for part in command if part.endswith(".py"))
            PARSERS[script](command[command.index(script) + 1 :])
        else:
            assert command[1] == "-c" or command[2] in BENCHMARKS


def test_the_paper_s_fine_tuning_starts_from_its_pre_training(started):
    for patch in (32, 16, 4):
        (pretraining,) = started(ROOT / f"recipes/paper/pretrain_patch{patch}.sh")
        folder = pretraining[pretraining.index("--output_dir") + 1]
        *_, finetuning = started(ROOT / f"recipes/paper/finetune_patch{patch}.sh")
        assert finetuning[finetuning.index("--finetune") + 1] == f"{folder}/checkpoint-999.pth"


def test_every_recipe_is_listed_and_can_be_started():
    text = (ROOT / "recipes" / "README.md").read_text()
    for recipe in RECIPES:
        assert recipe.name.removeprefix("pretrain").removeprefix("finetune") in text
        assert os.access(recipe, os.X_OK)
