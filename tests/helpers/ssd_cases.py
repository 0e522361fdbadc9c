"""Arguments of Mamba2's scan, shared by the tests of its backends."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SSDCase:
    """Sizes and options of one scan. dt_scale and A_scale widen the range of the decays."""

    batch: int = 2
    length: int = 9
    heads: int = 4
    headdim: int = 3
    groups: int = 1
    states: int = 5
    D: bool = True
    bias: bool = True
    softplus: bool = True
    reverse: bool = False
    dt_scale: float = 1.0
    A_scale: float = 1.0

    @property
    def options(self) -> dict[str, bool]:
        return {"dt_softplus": self.softplus, "reverse": self.reverse}

    def tensors(self, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Any]:
        """Leaf tensors that require gradients. Sequences are column ranges of one wide projection, as in a mixer."""
        generator = torch.Generator().manual_seed(seed)
        widths = [self.heads * self.headdim, self.groups * self.states, self.groups * self.states, self.heads]

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        x, B, C, dt = normal(self.batch, self.length, sum(widths)).split(widths, dim=-1)
        dt = dt * self.dt_scale
        bias = normal(self.heads)
        tensors = {
            "x": x.unflatten(-1, (self.heads, self.headdim)),
            "dt": dt if self.softplus else dt.abs(),
            "A": -self.A_scale * (normal(self.heads).abs() + 0.1),
            "B": B.unflatten(-1, (self.groups, self.states)),
            "C": C.unflatten(-1, (self.groups, self.states)),
            "D": normal(self.heads) if self.D else None,
            "dt_bias": (bias if self.softplus else bias.abs()) if self.bias else None,
        }
        return {name: t if t is None else t.detach().requires_grad_() for name, t in tensors.items()}


SSD_CASES = [
    SSDCase(),
    SSDCase(reverse=True),
    SSDCase(length=1),
    SSDCase(length=1, reverse=True, batch=1),
    SSDCase(length=2, heads=1, states=1, headdim=1),
    SSDCase(length=64),
    SSDCase(length=65, reverse=True),
    SSDCase(length=257, heads=2, batch=1),
    SSDCase(length=257, heads=2, batch=1, reverse=True),
    SSDCase(length=70, heads=6, groups=2),
    SSDCase(length=70, heads=6, groups=6, reverse=True),
    SSDCase(length=33, heads=3, groups=3, headdim=1),
    SSDCase(D=False, bias=False, softplus=False),
    SSDCase(length=100, D=False, reverse=True),
    SSDCase(length=100, bias=False),
    SSDCase(length=100, softplus=False, reverse=True),
    SSDCase(batch=0),
    SSDCase(length=130, dt_scale=30.0, A_scale=20.0),
    SSDCase(length=130, dt_scale=30.0, A_scale=20.0, reverse=True),
    SSDCase(length=130, A_scale=1e-6),
]
