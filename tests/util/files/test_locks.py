import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys

import pytest
import torch

from tests.helpers.prepared import ROOT
from util.distributed.world import World
from util.files.locks import LOCK, locked, locked_by_main

HOLD = """
import os, sys, time
from pathlib import Path
from util.files.locks import locked
with locked(Path(sys.argv[1]), "fold 2", "choose others"):
    child = os.fork()  # as a data-loading process
    if child:
        print(child, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds tmp_path, and its child."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        yield process, child
        process.kill()
        os.kill(child, signal.SIGKILL)


def test_the_error_of_a_second_job_names_the_holder_and_the_fix(tmp_path, holder):
    main = World(0, 1, torch.device("cpu"))
    with (
        pytest.raises(ValueError, match=rf"fold 2 \(.*\) is in use by process {holder[0].pid} on .*: choose others"),
        locked_by_main(main, tmp_path, "fold 2", "choose others"),
    ):
        pass
    with locked(tmp_path / "fold_3", "fold 3", ""):  # another folder is another matter
        assert holder[0].poll() is None


def test_a_killed_holder_leaves_no_lock_though_its_data_loading_process_lives(tmp_path, holder):
    holder[0].kill()
    holder[0].wait()
    os.kill(holder[1], 0)
    with locked(tmp_path, "fold 2", ""):
        assert f'"process": {os.getpid()}' in (tmp_path / LOCK).read_text()


@pytest.fixture
def failing_lock(monkeypatch):
    """Call it with the error number of every attempt to lock; unlocking works."""

    def fail_with(number):
        def lockf(handle, operation, lockf=fcntl.lockf):
            if operation == fcntl.LOCK_UN:
                return lockf(handle, operation)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "lockf", lockf)

    return fail_with


def test_a_file_system_without_locks_is_warned_about_and_used(tmp_path, failing_lock, caplog):
    failing_lock(errno.ENOLCK)
    with caplog.at_level(logging.WARNING), locked(tmp_path, "fold 2", "choose others"):
        assert "make sure that no other job writes to the same folder" in caplog.text


def test_another_error_of_the_lock_is_not_taken_for_a_holder(tmp_path, failing_lock):
    failing_lock(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)), locked(tmp_path, "fold 2", "choose others"):
        pass


def test_a_holder_that_has_not_written_its_name_is_another_process(tmp_path, failing_lock):
    failing_lock(errno.EAGAIN)
    for text in ("", "[]", "{}"):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ValueError, match="in use by another process"), locked(tmp_path, "fold 2", "choose others"):
            pass
