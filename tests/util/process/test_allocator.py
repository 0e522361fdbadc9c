import platform
import subprocess
import sys

import pytest

from util.process import allocator

FAULTS = """
import resource, torch
from util.process.allocator import keep_memory
kept = {} and keep_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    large = [torch.zeros(12 << 20) for _ in range(3)]  # 48 MiB each
for _ in range(10):  # until holes that fit have formed
    step()
before = faults()
for _ in range(4):
    step()
print(kept, faults() - before)
"""


def page_faults(keep: bool, **environment: str) -> tuple[bool, int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep)], env={"PYTHONPATH": ".", **environment}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    kept, count = done.stdout.split()
    return kept == "True", int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_large_tensors_are_not_mapped_again():
    kept, few = page_faults(keep=True)
    _, many = page_faults(keep=False)
    assert kept
    assert 20 * few < many  # 4 steps of 3 x 48 MiB: 147,456 pages, 288 where the system gives pages of 2 MiB


def test_the_environments_choice_stands():
    kept, many = page_faults(keep=True, MALLOC_MMAP_THRESHOLD_="1000000")
    assert not kept
    assert many > 200


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert not allocator.keep_memory()
