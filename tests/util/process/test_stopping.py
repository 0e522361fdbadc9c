import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import util.process.stopping
from tests.helpers.prepared import ROOT
from util.distributed.world import World
from util.process.stopping import ONE_REQUEST_S, StopRequest
from util.training.loader import train_loader

PROGRAM = """
import os, signal, sys, time
from util.process.stopping import StopRequest, Stopped
with StopRequest() as stop:
    child = os.fork()
    os.write(1, b"ready\\n")  # at once: both processes share the pipe
    end, was_asked = time.monotonic() + 100, False
    while time.monotonic() < end and not (child and stop.reason and sys.argv[1] == "polite"):
        if stop.reason and not was_asked:
            os.write(1, b"asked\\n")
            was_asked = True
        time.sleep(0.01)
print("left after", stop.reason, flush=True)
time.sleep(0.1)
os.kill(child, signal.SIGTERM)
print("child ended by", os.waitpid(child, 0)[1] >> 8, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_asks_instead_of_ending_the_process(number, caplog, monkeypatch):
    monkeypatch.setattr(
        util.process.stopping, "ONE_REQUEST_S", 3600.0
    )  # however long this machine takes between the two
    with StopRequest() as stop:
        assert stop.reason is None
        signal.raise_signal(number)
        assert stop.reason == number.name
        signal.raise_signal(number)  # a launcher's repetition
    assert "a second signal exits at once" in caplog.text


def test_handlers_are_those_of_before_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_time_limit_is_a_reason():
    stop = StopRequest(0.5)
    assert stop.reason is None
    stop.started -= 31
    assert stop.reason == "--max_minutes 0.5"


class Slow(torch.utils.data.Dataset):
    """Items that tell who made them."""

    def __len__(self):
        return 20

    def __getitem__(self, place):
        time.sleep(0.02)
        return os.getpid()


def test_workers_of_torch_outlive_a_signal_too():
    world = World(0, 1, torch.device("cpu"))
    with StopRequest() as stop:
        loader = train_loader(Slow(), batch_size=1, world=world, seed=0, num_workers=1, pin_memory=False)
        seen = []
        for batch in loader:
            seen.append(int(batch))
            if len(seen) == 2:
                os.kill(seen[0], signal.SIGTERM)
        assert len(seen) == 20
        assert seen[0] != os.getpid()
        assert stop.reason is None


def start(how):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    for _ in range(2):  # the process and its child
        assert process.stdout.readline().startswith("ready")
    return process


def test_a_second_signal_exits_at_once():
    process = start("stubborn")
    process.terminate()
    assert process.stdout.readline().startswith("asked")  # a second signal counts from the time of the first
    time.sleep(ONE_REQUEST_S + 0.2)
    os.killpg(process.pid, signal.SIGINT)
    with process:
        assert process.wait(90) == 128 + signal.SIGINT
    os.killpg(process.pid, signal.SIGKILL)


def test_data_loading_processes_outlive_a_signal_to_the_group_and_end_with_the_training():
    process = start("polite")
    os.killpg(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=90)
    assert out.splitlines()[-2:] == ["left after SIGTERM", f"child ended by {128 + signal.SIGTERM}"]
