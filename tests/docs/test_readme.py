"""The README's commands are accepted by the programs they name, and its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

import compare
import main_cr_finetune
import main_pretrain
import predict
import prepare_data
import probe
import vis.check_maps
import vis.report
import vis.visualize
import vis.visualize_finetuned

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PARSERS = {
    "main_pretrain.py": main_pretrain.parse,
    "main_cr_finetune.py": main_cr_finetune.parse,
    "prepare_data.py": prepare_data.parse_args,
    "probe.py": probe.parse,
    "predict.py": predict.parse,
    "compare.py": compare.parse,
    "visualize.py": vis.visualize.parse,
    "visualize_finetuned.py": vis.visualize_finetuned.parse,
    "report.py": vis.report.parse,
    "check_maps.py": vis.check_maps.parse,
}
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]


@pytest.mark.parametrize("command", [line for line in COMMANDS if ".py" in line])
def test_programs_accept_the_printed_command(command):
    words = shlex.split(command)
    index = next(i for i, word in enumerate(words) if word.endswith(".py"))
    PARSERS[Path(words[index]).name](words[index + 1 :])


def test_make_knows_the_two_commands():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_links_lead_to_files():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_every_option_of_the_papers_commands_is_here():
    """Both commands stand in the README as the paper prints them; parsing them above is the other half."""
    assert sum("--master_port=27590 --use_env" in command for command in COMMANDS) == 2
