"""Assertions of the kernels' entry points end the process. `make sanitize` runs them under sanitizers as well."""

import os
import subprocess
import sys

from tests.helpers.ops_cases import require_kernels
from tests.robustness.sanitize import FLAGS

CODE = """
import sys
import torch
from ops.cpu import build
build.FLAGS = {flags!r}
from ops.cpu import patches
patches.check_ids = lambda *unused: None  # as if Python forgot its check
volume, ids = torch.zeros(1, 1, 4, 4, 4), torch.tensor([[int(sys.argv[1])]])
print(patches.gather_patches(volume, ids, 2, False).shape)
"""


def test_a_debug_build_asserts_what_python_should_have_checked():
    require_kernels()
    flags = tuple(flag for flag in FLAGS if "sanitize" not in flag and flag not in ("-O1", "-g")) + ("-O0",)
    command = [sys.executable, "-c", CODE.format(flags=flags)]
    for number, words in (("7", "torch.Size([1, 1, 8])"), ("8", "patches.cpp"), ("-1", "a.ids[index] >= 0")):
        done = subprocess.run([*command, number], capture_output=True, text=True, check=False, env=os.environ)
        assert words in done.stdout + done.stderr
        assert (done.returncode == 0) == (number == "7")
