"""The least time of a training step on this machine: its matrix products, scans and memory traffic at measured rates.

The measured code does not enter, so slow code cannot raise its own floor: products are timed alone at the model's
shapes, the time of scan elements is that of exponentials, and every tensor that must reach memory is counted once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks.measuring import machine_limits
from benchmarks.measuring.timing import mean
from models import ModelConfig
from util.training.optim import PrecisionName

# Scan elements (L * I * N) per torch.exp2, (forward, forward and backward): a bare fused C++ kernel on two AVX-512
# cores did 6.3 and 2.1 G elements/s in float32, 7.9 and 2.5 in bfloat16, where torch.exp2 did 8.6 G/s.
SCAN_PER_EXP: dict[str, tuple[float, float]] = {"fp32": (6.3 / 8.6, 2.1 / 8.6), "bf16": (7.9 / 8.6, 2.5 / 8.6)}
LAST_OF_BLOCK = ("out_proj", "hybrid out", "mlp out")  # their output is kept, as the input of the next block
BEYOND_CACHES = 1 << 25  # float32 values, 128 MiB
ATTENTION_BACKWARD = 2.5  # flash attention's backward products over its forward ones, which it computes again


@dataclass(frozen=True)
class Linear:
    """`count` linear layers inner -> outer on `rows` tokens. The first layer of a model needs no input gradient."""

    name: str
    rows: int
    inner: int
    outer: int
    count: int = 1
    input_gradient: bool = True
    recomputed: bool = False


class Stack(NamedTuple):
    """`depth` blocks of width `width` on `tokens` tokens; `attending` of them are a hybrid's attention blocks."""

    tokens: int
    width: int
    depth: int
    attending: int = 0

    @property
    def mixing(self) -> int:
        """The number of blocks with the config's mixer."""
        return self.depth - self.attending


@dataclass(frozen=True)
class Work:
    """One training step of a model on a batch. mask_ratio is None for a classifier, which sees every token."""

    config: ModelConfig
    mask_ratio: float | None
    batch: int = 1

    @property
    def kept(self) -> int:
        return self.config.tokens if self.mask_ratio is None else int(self.config.tokens * (1 - self.mask_ratio))

    def stacks(self) -> list[Stack]:
        c = self.config
        encoder = Stack(self.kept * self.batch, c.embed_dim, c.depth, len(c.attention_layers))
        decoder = Stack(c.tokens * self.batch, c.decoder_embed_dim, c.decoder_depth)
        return [encoder] if self.mask_ratio is None else [encoder, decoder]

    def linears(self) -> Iterator[Linear]:
        c, kept, again = self.config, self.kept * self.batch, self.config.grad_checkpointing
        yield Linear("patch embedding", kept, c.patch_values, c.embed_dim, input_gradient=False)
        if self.mask_ratio is not None:
            yield Linear("decoder embedding", kept, c.embed_dim, c.decoder_embed_dim)
            yield Linear("prediction", c.tokens * self.batch - kept, c.decoder_embed_dim, c.patch_values)
        for rows, E, depth, attending in self.stacks():
            inner, rank, mixing = c.expand * E, -(-E // 16), depth - attending
            selecting = 2 * c.d_state + inner // c.head_dim  # B, C and dt of a Mamba2 direction
            shapes = {
                "mamba": [
                    ("in_proj", E, 2 * inner, mixing),
                    ("x_proj", inner, rank + 2 * c.d_state, mixing * self.directions),
                    ("dt_proj", rank, inner, mixing * self.directions),
                    ("out_proj", inner, E, mixing),
                ],
                "mamba2": [
                    ("in_proj", E, 2 * inner + selecting, mixing),
                    ("in_proj_b", E, selecting, mixing * (self.directions - 1)),
                    ("out_proj", inner, E, mixing),
                ],
                "attention": [("qkv", E, 3 * E, mixing), ("proj", E, E, mixing)],
            }[c.mixer]
            heads = c.attention_heads * c.attention_head_dim
            shapes += [("hybrid qkv", E, 3 * heads, attending), ("hybrid out", heads, E, attending)]
            if c.mlp_ratio:
                hidden = int(E * c.mlp_ratio)
                shapes += [("mlp in", E, hidden, depth), ("mlp out", hidden, E, depth)]
            for name, inner, outer, count in shapes:
                if count:
                    yield Linear(name, rows, inner, outer, count, recomputed=again and name not in LAST_OF_BLOCK)

    @property
    def directions(self) -> int:
        """Scans per block."""
        return 2 if self.config.directions == "both" else 1

    def scan_elements(self) -> int:
        """L * I * N over all blocks and directions of the selective scan. Each element needs one exponential."""
        return self._states() if self.config.mixer == "mamba" else 0

    def ssd_gflop(self) -> float:
        """GFLOP of Mamba2's scans, forward pass: every token is added to the state and reads it, 2 products of I N."""
        return 4e-9 * self._states() if self.config.mixer == "mamba2" else 0.0

    def _states(self) -> int:
        inner_states = self.directions * self.config.expand * self.config.d_state
        return sum(inner_states * stack.tokens * stack.width * stack.mixing for stack in self.stacks())

    def attention_gflop(self) -> float:
        """GFLOP of attention in the forward pass."""
        c, pairs = self.config, 4e-9 / self.batch
        hybrid = c.attention_heads * c.attention_head_dim
        return sum(
            pairs * s.tokens**2 * (s.width * s.mixing * (c.mixer == "attention") + hybrid * s.attending)
            for s in self.stacks()
        )

    def traffic_bytes(self, precision: PrecisionName) -> float:
        """Bytes that must reach memory outside products and scans: add + rotate + norm, convolutions, the volume.

        With s bytes per activation and a float32 residual: (2 s + 8) forward and (2 s + 12) backward per block and
        channel; 2 s and 3 s per channel of a convolution; the volume four times.
        """
        c, s, again = self.config, 4 if precision == "fp32" else 2, 2 if self.config.grad_checkpointing else 1
        bytes_per_channel, bytes_convolved = again * (2 * s + 8) + 2 * s + 12, again * 2 * s + 3 * s
        blocks = sum(
            stack.tokens * (stack.width * stack.depth * bytes_per_channel + self._convolved(stack) * bytes_convolved)
            for stack in self.stacks()
        )
        return blocks + 16 * c.patch_values * c.tokens * self.batch

    def _convolved(self, stack: Stack) -> int:
        """Channels that convolutions read, over all blocks and directions."""
        c = self.config
        per_direction = {
            "mamba": c.expand * stack.width, "mamba2": c.expand * stack.width + 2 * c.d_state, "attention": 0,
        }[c.mixer]  # fmt: skip
        attending = 3 * c.attention_heads * c.attention_head_dim * stack.attending
        return per_direction * self.directions * stack.mixing + attending


class Rates(NamedTuple):
    """The rates of a machine. product(linear, precision) gives seconds (forward, dx, dW) of one linear layer."""

    exp: float  # 1e9 per second
    memory: float  # GB/s

    @classmethod
    def measured(cls) -> "Rates":
        """The current rates of this machine, as means: a shared host slows rates and steps alike."""
        memory = max(rate(BEYOND_CACHES, mean) for rate in (machine_limits.copy_rate, machine_limits.read_rate))
        return cls(machine_limits.exp_rate(of=mean), memory)

    def product(self, linear: Linear, precision: PrecisionName) -> tuple[float, float, float]:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        p = machine_limits.product(linear.rows, linear.inner, linear.outer, dtype, mean)
        return p.forward, p.dx, p.dw


class Floor(NamedTuple):
    """Seconds of a step's parts at the machine's rates."""

    gemm: float
    scan: float
    memory: float

    @property
    def total(self) -> float:
        return sum(self)


def floor(work: Work, precision: PrecisionName, rates: Rates) -> Floor:
    """The floor of one forward and backward pass. Block checkpointing repeats the blocks' forward pass."""
    products = [(linear, rates.product(linear, precision)) for linear in work.linears()]
    gemm = sum(
        linear.count * (forward * (1 + linear.recomputed) + dx * linear.input_gradient + dw)
        for linear, (forward, dx, dw) in products
    )
    again = work.config.grad_checkpointing
    wide, (seconds, _, _) = next(
        x for x in products if x[0].name in ("in_proj", "qkv")
    )  # attention and ssd products are taken to have its rate
    per_gflop = seconds / (2e-9 * wide.rows * wide.inner * wide.outer)
    gemm += work.attention_gflop() * (1 + again + ATTENTION_BACKWARD) * per_gflop
    forward_rate, both_rate = (factor * rates.exp * 1e9 for factor in SCAN_PER_EXP[precision])
    scan = work.scan_elements() * (1 / both_rate + (1 / forward_rate if again else 0))
    scan += work.ssd_gflop() * (1 + again + 2) * per_gflop
    return Floor(gemm, scan, work.traffic_bytes(precision) / (rates.memory * 1e9))
