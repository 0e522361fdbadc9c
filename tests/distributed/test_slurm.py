"""The SLURM script of docs/distributed.md with fake SLURM commands: two nodes with one rank each, on this host."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.helpers.pages import blocks
from tests.helpers.prepared import ROOT, make_prepared
from tests.robustness import torture
from util.run_folder import STOPPED
from util.runs import checkpoints

SCRIPTS = [body for body in blocks(ROOT / "docs" / "distributed.md", "bash") if body.startswith("#!")]
JOB = torture.JOBS[1]
TIMEOUT_S = 600
FAKE_COMMANDS = {
    # SLURM sends --signal to the tasks of a step, not to the batch script, so srun records their ids
    "srun": 'for node in 0 1; do "$@" & echo $! >> tasks; done; wait',
    "scontrol": 'if [ "$1" = show ]; then echo localhost; echo localhost; else echo "$@" >> scontrol_calls; fi',
    "torchrun": 'exec "$PYTHON" -m torch.distributed.run "$@" $TEST_OPTIONS',
}


def test_scripts_are_shell():
    for script in SCRIPTS:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.slow
def test_two_nodes_survive_a_kill_stop_on_a_signal_and_are_requeued(tmp_path):
    (script,) = [script for script in SCRIPTS if "scontrol requeue" in script]
    (tmp_path / "main_pretrain.py").symlink_to(ROOT / "main_pretrain.py")
    for name, body in FAKE_COMMANDS.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = script.replace("29500", str(port)).replace("--nproc_per_node=4", "--nproc_per_node=1")
    folder, log = tmp_path / "runs" / "pretrain", tmp_path / "log"
    words = JOB.arguments(make_prepared(tmp_path / "data"), folder)
    environment = {
        **os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHON": sys.executable,
        "TEST_OPTIONS": " ".join([*words, "--epochs", "2000", "--keep_last", "3"]), "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE", "SLURM_JOB_NODELIST": "a[1-2]", "SLURM_JOB_ID": "7",
    }  # fmt: skip

    def wait_for(condition):
        stop = time.monotonic() + TIMEOUT_S
        while not condition():
            assert job.poll() is None, log.read_text()
            assert time.monotonic() < stop, log.read_text()
            time.sleep(0.02)

    with log.open("w") as output:
        job = subprocess.Popen(["bash"], cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stderr=output, text=True)
    try:
        job.stdin.write(script)
        job.stdin.close()
        wait_for(lambda: checkpoints(folder))
        tasks = [int(line) for line in (tmp_path / "tasks").read_text().split()]
        os.kill(torture.children(tasks[1])[0], signal.SIGKILL)
        wait_for(lambda: "resumed " in log.read_text())
        before = checkpoints(folder)[-1]
        wait_for(lambda: checkpoints(folder)[-1] != before)
        for task in tasks:
            os.kill(task, signal.SIGUSR1)
        assert job.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        with contextlib.suppress(OSError):
            for task in map(int, (tmp_path / "tasks").read_text().split()):
                for process in (*torture.children(task), task):
                    os.kill(process, signal.SIGKILL)
        job.kill()
        job.wait()
    assert '"reason": "SIGUSR1"' in (folder / STOPPED).read_text()
    assert (tmp_path / "scontrol_calls").read_text() == "requeue 7\n"
    assert log.read_text().count("2 rank(s)") == 2  # before and after the kill
