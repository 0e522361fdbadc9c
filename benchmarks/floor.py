"""The least time a training step can take here: its matrix products, scans and memory traffic at measured rates.

Nothing of the code under test enters, so that slow code cannot raise its own floor: products are timed alone at the
model's shapes, scan elements go by this machine's exponentials, and every tensor that must reach memory goes by once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch

from benchmarks import ceilings
from models import ModelConfig
from util.optim import PrecisionName

# Scan elements (L * I * N) per torch.exp2, (forward, forward and backward): a bare fused C++ kernel on two AVX-512
# cores did 6.3 and 2.1 G elements/s in float32, 7.9 and 2.5 in bfloat16, where torch.exp2 did 8.6 G/s.
SCAN_PER_EXP: dict[str, tuple[float, float]] = {"fp32": (6.3 / 8.6, 2.1 / 8.6), "bf16": (7.9 / 8.6, 2.5 / 8.6)}
ATTENTION_BACKWARD = 2.5  # times the forward products, which flash attention computes again


@dataclass(frozen=True)
class Linear:
    """`count` linear layers inner -> outer on `rows` tokens; the first of a model needs no gradient of its input."""

    name: str
    rows: int
    inner: int
    outer: int
    count: int = 1
    input_gradient: bool = True
    recomputed: bool = False


class Stack(NamedTuple):
    """`depth` blocks of width `width` on `tokens` tokens."""

    tokens: int
    width: int
    depth: int


@dataclass(frozen=True)
class Work:
    """One training step of a model on a batch; mask_ratio None means a classifier, which sees every token."""

    config: ModelConfig
    mask_ratio: float | None
    batch: int = 1

    @property
    def kept(self) -> int:
        return self.config.tokens if self.mask_ratio is None else int(self.config.tokens * (1 - self.mask_ratio))

    def stacks(self) -> list[Stack]:
        c = self.config
        encoder = Stack(self.kept * self.batch, c.embed_dim, c.depth)
        decoder = Stack(c.tokens * self.batch, c.decoder_embed_dim, c.decoder_depth)
        return [encoder] if self.mask_ratio is None else [encoder, decoder]

    def linears(self) -> Iterator[Linear]:
        c, kept, again = self.config, self.kept * self.batch, self.config.grad_checkpointing
        yield Linear("patch embedding", kept, c.patch_values, c.embed_dim, input_gradient=False)
        if self.mask_ratio is not None:
            yield Linear("decoder embedding", kept, c.embed_dim, c.decoder_embed_dim)
            yield Linear("prediction", c.tokens * self.batch - kept, c.decoder_embed_dim, c.patch_values)
        for rows, E, depth in self.stacks():
            inner, rank = c.expand * E, -(-E // 16)
            shapes = {
                "mamba": [
                    ("in_proj", E, 2 * inner, 1),
                    ("x_proj", inner, rank + 2 * c.d_state, 2),
                    ("dt_proj", rank, inner, 2),
                    ("out_proj", inner, E, 1),
                ],
                "attention": [("qkv", E, 3 * E, 1), ("proj", E, E, 1)],
            }[c.mixer]
            if c.mlp_ratio:
                hidden = int(E * c.mlp_ratio)
                shapes += [("mlp in", E, hidden, 1), ("mlp out", hidden, E, 1)]
            for name, inner, outer, count in shapes:
                yield Linear(name, rows, inner, outer, count * depth, recomputed=again)

    def scan_elements(self) -> int:
        """L * I * N over all blocks and both directions."""
        if self.config.mixer != "mamba":
            return 0
        return sum(2 * L * self.config.expand * E * self.config.d_state * depth for L, E, depth in self.stacks())

    def attention_gflop(self) -> float:
        """Of the forward pass."""
        if self.config.mixer != "attention":
            return 0.0
        return sum(4e-9 * L * L / self.batch * E * depth for L, E, depth in self.stacks())

    def traffic_bytes(self, precision: PrecisionName) -> float:
        """What must reach memory outside products and scans: add + rotate + norm, convolutions, the volume.

        With s bytes per activation, float32 residual: per block and channel (2 s + 8) forward and (2 s + 12) backward;
        convolution 2 s and 3 s per direction and inner channel; the volume four times.
        """
        s, again = 4 if precision == "fp32" else 2, 2 if self.config.grad_checkpointing else 1
        convolved = 2 * self.config.expand if self.config.mixer == "mamba" else 0
        forward, backward = 2 * s + 8 + 2 * s * convolved, 2 * s + 12 + 3 * s * convolved
        blocks = sum(L * E * depth * (again * forward + backward) for L, E, depth in self.stacks())
        return blocks + 16 * self.config.patch_values * self.config.tokens * self.batch


class Rates(NamedTuple):
    """What `Work` is divided by. product(linear, precision) gives seconds (forward, dx, dW) of one linear layer."""

    exp: float  # 1e9 per second
    memory: float  # GB/s

    @classmethod
    def measured(cls) -> "Rates":
        return cls(ceilings.exp_rate(), max(ceilings.copy_rate(), ceilings.read_rate()))

    def product(self, linear: Linear, precision: PrecisionName) -> tuple[float, float, float]:
        dtype = torch.float32 if precision == "fp32" else torch.bfloat16
        p = ceilings.product(linear.rows, linear.inner, linear.outer, dtype)
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
    """The floor of one forward and backward pass; block checkpointing repeats the blocks' forward pass."""
    gemm = 0.0
    for linear in work.linears():
        forward, dx, dw = rates.product(linear, precision)
        gemm += linear.count * (forward * (1 + linear.recomputed) + dx * linear.input_gradient + dw)
    again = work.config.grad_checkpointing
    if attention := work.attention_gflop():
        qkv = next(linear for linear in work.linears() if linear.name == "qkv")
        per_gflop = rates.product(qkv, precision)[0] / (2e-9 * qkv.rows * qkv.inner * qkv.outer)
        gemm += attention * (1 + again + ATTENTION_BACKWARD) * per_gflop
    forward_rate, both_rate = (factor * rates.exp * 1e9 for factor in SCAN_PER_EXP[precision])
    scan = work.scan_elements() * (1 / both_rate + (1 / forward_rate if again else 0))
    return Floor(gemm, scan, work.traffic_bytes(precision) / (rates.memory * 1e9))
