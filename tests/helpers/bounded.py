"""Running code in a process of its own that may not use more than so much memory and time."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = """
import resource, time
from pathlib import Path
pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + {mib} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
spent = int(time.process_time()) + {seconds}
resource.setrlimit(resource.RLIMIT_CPU, (spent, spent))
"""


def messages(imports: str, call: str, paths: list[Path], *, mib: int, seconds: int = 20) -> dict[str, str]:
    """By file name, what `call` (an expression of `path`) says in its ValueError, or "read" if it raises none.

    It runs after `imports`, with `mib` MiB of address space and `seconds` of processor time (a busy machine's clock
    decides nothing) beyond what those took. Any other error fails here.
    """
    code = f"""{imports}{LIMIT.format(mib=mib, seconds=seconds)}
import sys
for path in map(Path, sys.argv[1:]):
    try:
        {call}
        print(path.name, "read", sep="\\t")
    except ValueError as error:
        print(path.name, " ".join(str(error).split()), sep="\\t")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, paths)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(line.split("\t") for line in done.stdout.splitlines())
