import argparse
import logging

import torch

from util.launch import launch


def test_work_gets_a_world_threads_and_a_voice(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    before, seen = torch.get_num_threads(), []

    def work(args, world):
        seen.append((args.device, world.size, torch.get_num_threads()))
        assert logging.getLogger("util.training").isEnabledFor(logging.INFO)

    try:
        launch(argparse.Namespace(device="cpu", threads=1), work)
    finally:
        torch.set_num_threads(before)
    assert seen == [("cpu", 1, 1)]
