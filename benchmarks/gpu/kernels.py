"""Times of the mixer's kernels compared with the GPU's peak rates."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.checks import CUDA, INNER, STATES, block_tensors, both, normal, scan_tensors
from benchmarks.gpu.log import Log
from benchmarks.gpu.timing import kernels, listing, milliseconds
from benchmarks.measuring.step_floor import Linear, Work
from ops import add_norm_fn, bimamba_block_fn, bimamba_fn, dispatch
from ops.arguments import ScanInputs

BACKWARD_PER_EXP = 0.74 / 0.42  # of a scan's element: 14 float instructions relative to one exponential
HALF = torch.bfloat16


@dataclass
class Ceilings:
    """copy, GB/s read and written; product, TFLOP/s in bfloat16; exp, 1e9 per second."""

    copy: float
    product: float
    exp: float

    def linear(self, rows: int, inner: int, outer: int) -> tuple[float, float, float]:
        """Milliseconds of y = x W', dx = dy W and dW = dy' x in bfloat16."""
        x, dy, weight = (normal(*shape, dtype=HALF) for shape in ((rows, inner), (rows, outer), (outer, inner)))
        runs = (lambda: x @ weight.t()), (lambda: dy @ weight), (lambda: dy.t() @ x)
        return tuple(milliseconds(run, repeats=5, warmup=2) for run in runs)  # pyright: ignore

    def step(self, work: Work) -> tuple[float, float, float]:
        """Milliseconds of a forward and backward pass: products, scan, memory."""
        known: dict[tuple[int, int, int], tuple[float, float, float]] = {}

        def product(linear: Linear) -> float:
            shape = linear.rows, linear.inner, linear.outer
            forward, dx, dw = known.setdefault(shape, known.get(shape) or self.linear(*shape))
            return linear.count * (forward * (1 + linear.recomputed) + dx * linear.input_gradient + dw)

        again = 2 if work.config.grad_checkpointing else 1
        scan = work.scan_elements() * (again + BACKWARD_PER_EXP) / self.exp / 1e6
        return sum(map(product, work.linears())), scan, work.traffic_bytes("bf16") / self.copy / 1e6


def measure_ceilings(log: Log) -> Ceilings:
    source = torch.empty(1 << 30, dtype=torch.uint8, device=CUDA)
    target = torch.empty_like(source)
    copy = 2 * source.numel() / milliseconds(lambda: target.copy_(source)) / 1e6
    side = 8192
    a, b = normal(side, side, dtype=HALF), normal(side, side, dtype=HALF)
    product = 2 * side**3 / milliseconds(lambda: a @ b) / 1e9
    exp = exp_rate()
    log(f"copy {copy:.0f} GB/s, product {product:.0f} TFLOP/s (bf16, {side}^3), exp2 {exp:.0f} G/s")
    ceilings = Ceilings(copy, product, exp)
    for rows in (1000, 64_000):
        for inner, outer in ((384, 1536), (768, 56), (24, 768), (768, 384)):
            forward, dx, dw = ceilings.linear(rows, inner, outer)
            rates = " / ".join(f"{2e-9 * rows * inner * outer / x:.0f}" for x in (forward, dx, dw))
            log(f"  product {rows} x {inner} -> {outer}: {forward:.4f} / {dx:.4f} / {dw:.4f} ms, {rates} TFLOP/s")
    return ceilings


def exp_rate(elements: int = 1 << 24, times: int = 256) -> float:
    """1e9 exponentials per second in registers."""
    from benchmarks.gpu.exp import many_exponentials  # needs Triton

    out, block = torch.empty(elements, device=CUDA), 1024
    kernel: Any = many_exponentials[(elements // block,)]
    return elements * times / milliseconds(lambda: kernel(out, times, BLOCK=block, num_warps=4)) / 1e6


def ratio(log: Log, name: str, took: float, floor: float) -> None:
    log(f"  {name:44s} {took:8.3f} ms, floor {floor:7.3f}, {took / floor:6.2f} times")


def scan_call(length: int, batch: int, dtype: torch.dtype = HALF, inner: int = INNER) -> tuple[Any, Tensor, Tensor]:
    """Arguments of the scan of both directions in a mixer's layouts, its gate, and memory for its result."""
    from ops.triton.scan import ScanArguments

    t = scan_tensors(batch, length, inner, STATES, dtype)
    pair: dict[str, Tensor] = {
        name: torch.stack([t[name].detach()] * 2).contiguous() for name in ("A", "D", "delta_bias")
    }
    u, delta = (torch.stack([t[name].detach().transpose(1, 2)] * 2) for name in ("u", "delta"))
    B, C = (torch.stack([t[name].detach().transpose(2, 3).float()] * 2) for name in ("B", "C"))
    z = t["z"].detach().transpose(1, 2)
    call = ScanArguments(u, delta, pair["A"], B, C, pair["D"], z, pair["delta_bias"], True, False, 0.5)
    return call, z, torch.empty(batch, length, inner, dtype=dtype, device=CUDA)


def scan_times(log: Log, ceilings: Ceilings, length: int, batch: int, dtype: torch.dtype = HALF) -> None:
    from ops.triton import scan

    call, _, out = scan_call(length, batch, dtype)
    starts, _ = scan.forward(call, out)
    dout, dz, again = torch.randn_like(out), torch.empty_like(out), torch.empty_like(out)
    floor = 2 * batch * length * INNER * STATES / ceilings.exp / 1e6
    title = f"both directions, L={length}, B={batch}, {str(dtype)[6:]}"
    ratio(log, f"scan forward, {title}", milliseconds(lambda: scan.forward(call, out)), floor)
    backward = milliseconds(lambda: scan.backward(call, dout, starts, dz, again))
    ratio(log, f"scan backward, {title}", backward, floor * BACKWARD_PER_EXP)


def other_times(log: Log, ceilings: Ceilings, length: int, batch: int) -> None:
    """Convolution of both directions, sum and norm, compared with the time of their memory traffic."""
    from ops.triton import add_norm, conv

    width = INNER // 2
    xz = normal(batch, length, 2 * INNER, dtype=HALF)
    x, dx = xz[..., :INNER], torch.empty_like(xz)[..., :INNER]
    weight, bias = normal(2, INNER, 4), normal(2, INNER)
    u = torch.empty(2, batch, length, INNER, dtype=HALF, device=CUDA)
    rows = batch * length
    took = milliseconds(lambda: conv.forward(x, weight, bias, True, False, u))
    ratio(log, f"conv forward, both, L={length}, B={batch}", took, rows * INNER * 6 / ceilings.copy / 1e6)
    took = milliseconds(lambda: conv.backward(u, x, weight, bias, True, False, dx))
    ratio(log, f"conv backward, both, L={length}, B={batch}", took, rows * INNER * 8 / ceilings.copy / 1e6)
    hidden, residual = normal(batch, length, width, dtype=HALF), normal(batch, length, width)
    rotation, norm = normal(1, length, width), normal(width)
    head = hidden, residual, rotation, norm, None, 1e-5, HALF
    took = milliseconds(lambda: add_norm.forward(*head))
    ratio(log, f"sum and norm forward, L={length}, B={batch}", took, rows * width * 12 / ceilings.copy / 1e6)
    normed, total = add_norm.forward(*head)
    tail = rotation, norm, None, 1e-5, HALF
    took = milliseconds(lambda: add_norm.backward(normed, total, total, *tail))
    ratio(log, f"sum and norm backward, L={length}, B={batch}", took, rows * width * 16 / ceilings.copy / 1e6)


def block_call(length: int, batch: int, recompute: bool, backend: Any = "triton") -> Callable[[], Tensor]:
    """The forward pass of a whole block of width 384 under autocast."""
    tensors = block_tensors(batch, length, INNER // 2, HALF)
    angles = normal(1, length, INNER // 4)
    rotation = torch.polar(torch.ones_like(angles), angles)
    head = tensors["hidden"], tensors["residual"], rotation, tensors["norm_weight"], 1e-5, None
    tail = *both(tensors), tensors["out_weight"]

    def run() -> Tensor:
        with torch.autocast("cuda", dtype=HALF):
            if recompute:
                return bimamba_block_fn(*head, tensors["in_weight"], *tail, backend=backend)[0]
            normed, _ = add_norm_fn(*head)
            return bimamba_fn(F.linear(normed, tensors["in_weight"]), *tail, backend=backend)

    return run


def block_times(log: Log, length: int, batch: int, detailed: bool) -> None:
    for recompute in (False, True):
        run = block_call(length, batch, recompute)
        dout = torch.randn_like(run())

        def both_ways(run: Callable[[], Tensor] = run, dout: Tensor = dout) -> None:
            run().backward(dout)

        with torch.no_grad():
            forward = milliseconds(run)
        title = f"block, L={length}, B={batch}, recompute={recompute}"
        log(f"  {title}: forward {forward:.3f} ms, forward and backward {milliseconds(both_ways):.3f} ms")
        if detailed:
            log("\n".join(listing(kernels(both_ways))))


def chunked_times(log: Log, length: int = 1000) -> None:
    """One direction's scan with the kernels and in plain PyTorch."""
    tensors = scan_tensors(1, length, INNER, STATES, HALF)
    for backend in ("triton", "chunked"):

        def forward(backend: Any = backend) -> Tensor:
            return dispatch.scan(ScanInputs(**tensors, delta_softplus=True), backend)[0]

        def both_ways(forward: Callable[[], Tensor] = forward) -> None:
            forward().sum().backward()

        few = {"repeats": 3, "warmup": 1}
        log(f"  operator scan, L={length}, backend {backend}: forward {milliseconds(forward, **few):.2f} ms, "
            f"forward and backward {milliseconds(both_ways, **few):.2f} ms")  # fmt: skip


VARIANTS: list[dict[str, int]] = [
    {},
    {"FORWARD_CHANNELS": 32},
    {"FORWARD_CHANNELS": 128},
    {"BACKWARD_CHANNELS": 64},
    {"BACKWARD_CHANNELS": 64, "STATES_AT_ONCE": 4},
    {"BACKWARD_CHANNELS": 32, "STATES_AT_ONCE": 4},
    {"STATES_AT_ONCE": 1},
    {"PROGRAMS_PER_CORE": 4},
    {"PROGRAMS_PER_CORE": 16},
    {"PROGRAMS_PER_CORE": 32},
]


@contextmanager
def settings(changed: dict[str, int]) -> Iterator[None]:
    """Changed constants of the kernels, restored afterwards."""
    from ops.triton import host, scan

    before = [(module, name, getattr(module, name)) for module in (host, scan) for name in changed
              if hasattr(module, name)]  # fmt: skip
    for module, name, _ in before:
        setattr(module, name, changed[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def run_variant(changed: dict[str, int], length: int, batch: int = 1) -> tuple[float, float, list[str]]:
    """(forward, backward) milliseconds of the scan of both directions, and its kernels."""
    from ops.triton import scan

    call, _, out = scan_call(length, batch)
    dout, dz, again = torch.randn_like(out), torch.empty_like(out), torch.empty_like(out)
    with settings(changed):
        starts, _ = scan.forward(call, out)

        def backward() -> object:
            return scan.backward(call, dout, starts, dz, again)

        few: dict[str, Any] = {"repeats": 7, "warmup": 2, "budget": 0.5}
        took = milliseconds(lambda: scan.forward(call, out), **few), milliseconds(backward, **few)
        by_name = kernels(lambda: (scan.forward(call, out), backward()), calls=2)
    return *took, [f"{name} {total:.3f}" for name, (total, _) in by_name.items() if name.startswith(("scan_", "adj"))]


def variant_times(log: Log, lengths: tuple[int, ...] = (64_000, 8_000, 1_000)) -> None:
    for length in lengths:
        for changed in VARIANTS:
            if log.left < 5:
                return

            def one(changed: dict[str, int] = changed, length: int = length) -> None:
                forward, backward, times = run_variant(changed, length)
                log(f"  L={length} {changed or 'as it is'}: forward {forward:.3f}, backward {backward:.3f} ms; "
                    f"{', '.join(times)}")  # fmt: skip

            log.attempt(f"variant {changed}", one)
