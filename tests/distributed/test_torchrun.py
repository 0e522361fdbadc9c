"""The programs under torchrun: restarts after a kill, failures, polite stops."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.prepared import ROOT, make_prepared
from tests.robustness import torture
from util.run_folder import STOPPED
from util.runs import checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the ranks are found in /proc of Linux"),
]
JOB = replace(torture.JOBS[1], options=(*torture.JOBS[1].options, "--epochs", "12"))
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_prepared(tmp_path_factory.mktemp("data"))


@contextlib.contextmanager
def torchrun(arguments, log, *options):
    """torchrun of the program of JOB on two ranks. Remaining processes are killed at the end."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", *options, f"{JOB.program}.py"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with log.open("w") as output:
        process = subprocess.Popen([*launcher, *arguments], cwd=ROOT, env=environment, stderr=output)
    try:
        yield process
    finally:
        for pid in torture.children(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


def wait_for_checkpoint(process, folder, log):
    stop = time.monotonic() + TIMEOUT_S
    while not checkpoints(folder):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < stop, log.read_text()
        time.sleep(0.002)


def test_a_killed_rank_is_restarted_and_the_run_ends_like_an_uninterrupted_one(data, tmp_path):
    torture.run(JOB, data, tmp_path / "whole")
    folder, log = tmp_path / "cut", tmp_path / "log"
    with torchrun(JOB.arguments(data, folder), log, "--standalone", "--max_restarts=1") as process:
        wait_for_checkpoint(process, folder, log)
        os.kill(torture.children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(TIMEOUT_S) == 0, log.read_text()
    assert f"resumed {folder}" in log.read_text()
    assert torture.bytes_that_differ(folder, tmp_path / "whole") == 0


def test_a_failing_rank_ends_the_run_and_its_message_comes_first(data, tmp_path):
    broken, log = shutil.copytree(data, tmp_path / "broken"), tmp_path / "log"
    (path,) = broken.glob("t1/*-07_t1.npy")
    with torchrun(JOB.arguments(broken, tmp_path / "run"), log, "--standalone", "--max_restarts=0") as process:
        wait_for_checkpoint(process, tmp_path / "run", log)
        path.unlink()  # one of the two ranks will read it
        assert process.wait(TIMEOUT_S) == 1
    errors = [line for line in log.read_text().splitlines() if line.startswith("error: rank ")]
    assert path.name in errors[0]
    assert "stops: another rank ended" in errors[1]
    root_cause = log.read_text().split("Root Cause")[1]
    assert path.name in root_cause


def test_sigterm_to_torchrun_stops_politely(data, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    with torchrun(JOB.arguments(data, folder), log, "--standalone") as process:
        wait_for_checkpoint(process, folder, log)
        process.terminate()
        assert process.wait(TIMEOUT_S) == 1, log.read_text()
    stopped = json.loads((folder / STOPPED).read_text())
    assert stopped["reason"] == "SIGTERM"
    assert "continue with --resume auto" in log.read_text()
    torture.run(JOB, data, folder)
    torture.run(JOB, data, tmp_path / "whole")
    assert torture.bytes_that_differ(folder, tmp_path / "whole") == 0
