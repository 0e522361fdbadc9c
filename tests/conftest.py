"""Shared by all tests: one thread, the repository on the path, small models."""

import logging
import os
import random
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pytest
import torch

FIXTURES = Path(__file__).parent / "fixtures"
SMALL = {
    "img_size": (16, 24, 32), "embed_dim": 48, "depth": 2, "decoder_embed_dim": 24, "decoder_depth": 2, "d_state": 4,
    "drop_path_rate": 0.0, "num_heads": 4, "decoder_num_heads": 4, "head_dim": 8, "attention_heads": 2,
    "attention_head_dim": 8,
}  # fmt: skip  # grid (2, 3, 4) at patch 8: no two sides alike


@pytest.fixture(autouse=True)
def _seeded():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what timm and torchio draw from
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """Programs set levels and handlers for their process; the next test, whichever it is, must not see them."""
    before = {logger: logger.level for logger in _loggers()}
    handlers, disabled = logging.root.handlers[:], logging.root.manager.disable
    yield
    logging.root.handlers[:] = handlers
    if logging.root.manager.disable != disabled:
        logging.disable(disabled)
    for logger in _loggers():
        if logger.level != before.get(logger, logging.NOTSET):
            logger.setLevel(before.get(logger, logging.NOTSET))


def _loggers():
    return [logging.root, *(one for one in logging.root.manager.loggerDict.values() if isinstance(one, logging.Logger))]


@pytest.fixture
def volume():
    return torch.randn(2, 4, 16, 24, 32)


@pytest.fixture(scope="session")
def hub_runs(tmp_path_factory):
    """A folder with the runs of tests/helpers/hub_runs.py; do not change what is in it."""
    from tests.helpers.hub_runs import make_runs

    return make_runs(tmp_path_factory.mktemp("hub_runs"))
