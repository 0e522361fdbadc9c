"""Whether half-precision products pay on this CPU, measured once per process, and what a run uses instead.

PyTorch computes bfloat16 and float16 products on every CPU. Where the CPU has no instructions for them, they take a few
to some hundred times as long as in float32. The CPU's own description is only a hint, so both are timed.
Where half precision does not pay, everything is float32, sequences too: on AVX2 the scan is no faster on bfloat16
sequences, and every product would need conversions. float16 never pays on a CPU: the kernels of ops/cpu/backend.py
support float32 and bfloat16, and the plain scan that float16 falls back to costs more than products can save.
"""

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from util.distributed.world import World
from util.run_folder import CONFIG
from util.runs import cpu_name, read_config
from util.training.optim import DTYPES, PrecisionName

logger = logging.getLogger(__name__)

ROWS, INNER, OUTER = 128, 384, 384  # a millisecond in float32 on one core
REPEATS, ENOUGH_S = 6, 0.02  # timings of each product: two at least, and no more once this time is spent
OF_KERNELS: tuple[PrecisionName, ...] = ("bf16",)  # what the CPU kernels of the mixers support besides float32
Measure = Callable[[PrecisionName], float]


@dataclass(frozen=True)
class Precision:
    """The precision that a run asks for, the one that it uses, and why.

    factor: seconds of products in `asked` over float32's; None where it was not measured: on a GPU, for float32.
    cpu: where it was measured; a run that is resumed there keeps `used`.
    """

    asked: PrecisionName
    used: PrecisionName
    factor: float | None = None
    cpu: str | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON values, for config.json."""
        return asdict(self)

    @property
    def reason(self) -> str:
        """Why `used` is not `asked`."""
        timed = f"{self.asked} products take {self.factor:.2g} times as long as float32's on this CPU ({self.cpu})"
        return (
            timed if self.asked in OF_KERNELS else f"{timed}, and the scan's kernels do not support {self.asked} there"
        )


@functools.cache
def slowdown(precision: PrecisionName) -> float:
    """Seconds of matrix products in bf16 or fp16 over those in float32, here, with PyTorch's present threads.

    Of a linear layer, of its weight gradient and of a batch of two, as the mixers have them, each the lowest of a few
    timings. They take some tens of milliseconds; where half precision is slow, some tenths of a second.
    """
    with torch.no_grad(), torch.autocast("cpu", enabled=False):
        half, full = _seconds(DTYPES[precision]), _seconds(torch.float32)
    return half / full


def _seconds(dtype: torch.dtype) -> float:
    x, dy, weight = (torch.ones(shape, dtype=dtype) for shape in ((ROWS, INNER), (ROWS, OUTER), (OUTER, INNER)))
    rows, weights = x.expand(2, -1, -1).contiguous(), weight.expand(2, -1, -1).contiguous()
    products: tuple[Callable[[], Tensor], ...] = (
        lambda: F.linear(x, weight),
        lambda: dy.t() @ x,
        lambda: torch.bmm(rows, weights.mT),
    )
    return sum(map(_lowest, products))


def _lowest(run: Callable[[], Tensor]) -> float:
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < REPEATS and sum(seconds) < ENOUGH_S):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def this_cpu() -> str:
    """The processor's name and the instructions that PyTorch uses of it, which the environment may restrict."""
    return f"{cpu_name()}, {instruction_set()}"


def instruction_set() -> str:
    """PyTorch's name of it and the half precisions that oneDNN has instructions for, such as "AVX512 with bf16"."""
    known = [name for name in DTYPES if torch.backends.mkldnn.is_available() and _hint(name)]
    flags = Path("/proc/cpuinfo")
    has_amx = "bf16" in known and flags.exists() and "amx_bf16" in flags.read_text().split()
    name = torch.backends.cpu.get_cpu_capability() + (" and AMX" if has_amx else "")
    return name + (f" with {', '.join(known)}" if known else "")


def _hint(precision: str) -> bool:
    return getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported")()


def decide(
    asked: PrecisionName, device: torch.device, *, kept: Precision | None = None, measure: Measure = slowdown
) -> Precision:
    """What to compute in on `device`: as asked, or in float32 on a CPU where that is faster.

    kept: of a run that goes on. On the same CPU it stands, so that a second measurement cannot change a run half-way.
    """
    if device.type != "cpu" or asked not in DTYPES:
        return Precision(asked, asked)
    cpu = this_cpu()
    if kept is not None and (kept.asked, kept.cpu) == (asked, cpu):
        return kept
    factor = measure(asked)
    pays = factor < 1 and asked in OF_KERNELS
    return Precision(asked, asked if pays else "fp32", round(factor, 3), cpu)


def choose(
    asked: PrecisionName, device: torch.device, *, kept: Precision | None = None, measure: Measure = slowdown
) -> Precision:
    """`decide`, with a warning where that is not as asked or, on other hardware, not what the run used before."""
    found = decide(asked, device, kept=kept, measure=measure)
    has_changed = kept is not None and kept.asked == asked and kept.used != found.used
    before = f"; until now this run computed in {kept.used}" if kept is not None and has_changed else ""
    if found.used != asked:
        logger.warning("--precision %s: %s; computing in float32%s", asked, found.reason, before)
    elif before:
        logger.warning("--precision %s is in use from here on%s", asked, before)
    return found


def precision_of_run(asked: PrecisionName, world: World, run: Path | None, measure: Measure = slowdown) -> Precision:
    """`choose` for a training, the same on all ranks: the main one measures. run: folder of the run that goes on."""
    found: list[Precision] = []

    def on_main() -> None:
        found.append(choose(asked, world.device, kept=recorded(run), measure=measure))

    world.on_main_rank(on_main)
    return world.gather(found)[0]


def recorded(run: Path | None) -> Precision | None:
    """The precision in the config.json of a run; None where there is no run, or an older one that records none."""
    if run is None or not (run / CONFIG).is_file():
        return None
    found = read_config(run).get("precision")
    return Precision(**found) if found else None
