"""Options of numbers take what lies within their range, and say the range for everything else."""

import argparse
import math

import pytest

import compare
import main_cr_finetune
import main_pretrain
import predict
import prepare_data
import probe
import vis.check_maps
import vis.contrast_table
import vis.report
import vis.visualize
import vis.visualize_finetuned
from util import ranges
from util.checkpoint import __main__ as checkpoint
from util.options import build
from util.options.finetune import FinetuneOptions
from util.options.pretrain import PretrainOptions

HOSTILE = ("nan", "inf", "-inf", "-1", "0", "1e-300", "1e20", "1e308", "", "1,5", "1" * 5000, "0x10", "five")
PARSERS = {
    "prepare_data": prepare_data.parse, "probe": probe.parse, "compare": compare.parse, "predict": predict.parse,
    "check_maps": vis.check_maps.parse, "contrast_table": vis.contrast_table.parse, "report": vis.report.parse,
    "visualize": vis.visualize.parse, "visualize_finetuned": vis.visualize_finetuned.parse,
    "checkpoint": checkpoint.parse, "pretrain": main_pretrain.parse, "finetune": main_cr_finetune.parse,
}  # fmt: skip


class Stop(Exception):
    pass


@pytest.fixture
def parsers_of(monkeypatch):
    """The parser that a program builds, with those of its sub-commands."""

    def caught(parse):
        built = []

        def keep(parser, *_):
            built.append(parser)
            raise Stop

        with monkeypatch.context() as patch:
            patch.setattr(argparse.ArgumentParser, "parse_args", keep)
            with pytest.raises(Stop):
                parse([])
        commands = [action for action in built[0]._actions if isinstance(action, argparse._SubParsersAction)]
        return built + [parser for action in commands for parser in action.choices.values()]

    return caught


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (ranges.positive, {"1": 1, " 7 ": 7}, ["0", "-1", "1e3", "1.0"]),
        (ranges.count, {"0": 0, "2": 2}, ["-1"]),
        (ranges.not_negative, {"0": 0.0, "0.5": 0.5}, ["-0.1", "inf", "nan", "1e300"]),
        (ranges.minutes, {"0.5": 0.5}, ["0", "inf", "1e308"]),
        (ranges.seed, {"0": 0, "4294967295": 2**32 - 1}, ["-1", "4294967296"]),
        (ranges.part, {"0.5": 0.5, "1e-300": 1e-300}, ["0", "1"]),
        (ranges.part_or_none, {"0": 0.0}, ["1", "-0.1"]),
        (ranges.factor, {"1": 1.0}, ["0", "1.01"]),
    ],
)
def test_checks_of_numbers(check, good, bad):
    assert {text: check(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f'"{text}" is not a '):
            check(text)


def test_messages_state_the_range():
    with pytest.raises(argparse.ArgumentTypeError, match=r'^"0" is not a number above 0 and below 1$'):
        ranges.part("0")
    with pytest.raises(argparse.ArgumentTypeError, match=r'^"x" is not a whole number from 1 to 1,024$'):
        ranges.threads("x")


@pytest.mark.parametrize("program", [PretrainOptions, FinetuneOptions])
def test_every_number_of_a_training_has_a_range(program):
    assert [one.flag for one in build.list_options(program) if one.check in (int, float)] == []


@pytest.mark.parametrize("name", PARSERS)
def test_hostile_numbers_are_refused_in_one_line_or_lie_within_the_range(name, parsers_of, capsys):
    for parser in parsers_of(PARSERS[name]):
        for action in parser._actions:
            assert action.type not in (int, float), f"{action.option_strings}: give it a range (util/ranges.py)"
            if not isinstance(action.type, ranges.Whole | ranges.Real):
                continue
            for text in HOSTILE:
                try:
                    value = parser._get_value(action, text)
                except argparse.ArgumentError as error:
                    with pytest.raises(SystemExit) as left:
                        parser.error(str(error))
                    assert left.value.code == 2
                    printed = capsys.readouterr().err
                    assert printed.startswith(f"error: argument {action.option_strings[0]}: ")
                    assert printed.count("\n") == 1
                else:
                    assert math.isfinite(value)
                    assert action.type.low <= value <= action.type.high
