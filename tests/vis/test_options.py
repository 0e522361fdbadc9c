"""Shared options offer every map and have the right defaults."""

import pytest

from util.cli import Parser
from vis.maps.latent import MAPS
from vis.maps.registry import CLASS_SPECIFIC
from vis.options import add_class_specific_options, add_map_options


def test_options_offer_every_map():
    parser = Parser()
    add_map_options(parser)
    assert parser.parse_args(["--map", *MAPS]).map == list(MAPS)
    assert not hasattr(parser.parse_args([]), "target")
    with pytest.raises(SystemExit):
        parser.parse_args(["--map", "median"])


def test_options_of_classes_are_for_classifiers_only():
    parser = Parser()
    add_map_options(parser, classes=True)
    args = parser.parse_args(["--map", *CLASS_SPECIFIC])
    assert (args.target, args.steps, args.window, args.batch_size) == (None, 16, 1, 8)
    other = Parser()
    add_class_specific_options(other, window=2)
    assert other.parse_args([]).window == 2
