"""Block and Trunk: the residual stream of encoder, decoder and classifier (docs/method.md#block-and-trunk).

Shape suffixes: B batch, L tokens, E width.
"""

from collections.abc import Callable, Container
from functools import partial
from itertools import islice
from typing import cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath, drop_path
from timm.layers.mlp import Mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.blocks.conv_attention import ConvAttention
from models.blocks.mamba2 import Mamba2
from models.blocks.mixers import Attention, BiMamba
from models.config import MixerName, ModelConfig
from ops import Backend, add_norm_fn, bimamba_block_fn

NORM_EPS = 1e-5
Pair = tuple[Tensor, Tensor]
Collect = Callable[[int, Tensor], None]


class RMSNorm(nn.RMSNorm):
    """RMSNorm computed in float32 at least, as sums over many blocks need it. The result has the weight's precision."""

    def forward(self, x: Tensor) -> Tensor:
        precise = torch.promote_types(x.dtype, torch.float32)
        normed = F.rms_norm(x.to(precise), self.normalized_shape, self.weight.to(precise), self.eps)
        return normed.to(self.weight.dtype)


class Block(nn.Module):
    """add -> rotate -> norm -> mixer, with the sum kept in float32: (hidden, residual) -> (hidden, residual).

    drop_path acts on the incoming hidden, the previous block's output. A feed-forward part, if the family has one,
    follows in the same form.
    """

    def __init__(
        self, dim: int, mixer: nn.Module, drop_path: float, mlp_ratio: float = 0.0, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        self.backend: Backend = backend
        self.norm = RMSNorm(dim, eps=NORM_EPS)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio)) if mlp_ratio else None
        self.norm2 = RMSNorm(dim, eps=NORM_EPS) if mlp_ratio else None

    def forward(
        self, hidden: Tensor, residual: Tensor | None, rotation: Tensor | None, recompute: bool = False
    ) -> Pair:
        """recompute: keep little but the sum between the passes; the backward pass computes the rest again."""
        scales = self._scales(hidden, residual)
        if not recompute:
            return self._parts(hidden, residual, rotation, *scales)
        if isinstance(self.mixer, BiMamba) and not self.mixer.causal and self.mlp is None:
            arguments = hidden, residual, rotation, self.norm.weight, NORM_EPS, scales[0]
            return bimamba_block_fn(*arguments, *self.mixer.weights(), backend=self.mixer.backend)
        arguments = hidden, residual, rotation, *scales
        return cast(Pair, checkpoint(self._parts, *arguments, use_reentrant=False, preserve_rng_state=False))

    def _parts(
        self,
        hidden: Tensor,
        residual: Tensor | None,
        rotation: Tensor | None,
        scale: Tensor | None,
        mlp_scale: Tensor | None,
    ) -> Pair:
        """This draws no random numbers, so it can be computed again without the generator's state."""
        add_norm = partial(add_norm_fn, backend=self.backend)
        normed, total = add_norm(hidden, residual, rotation, self.norm.weight, NORM_EPS, scale)
        hidden = self.mixer(normed)
        if self.mlp is not None and self.norm2 is not None:
            normed, total = add_norm(hidden, total, None, self.norm2.weight, NORM_EPS, mlp_scale)
            hidden = self.mlp(normed)
        return hidden, total

    def _scales(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """drop_path's factors of the incoming hidden and of the mixer's output, each (B,), or None without drop_path.

        A factor is 0 for a dropped sample and above 1 for the others.
        """
        if not self.training or not self.drop_path.drop_prob:
            return None, None
        ones = hidden.new_ones(hidden.shape[0], dtype=torch.float32)
        hidden_scale = None if residual is None else self.drop_path(ones)
        return hidden_scale, None if self.mlp is None else self.drop_path(ones)


class Trunk(nn.ModuleList):
    """A list of blocks and their forward pass.

    The trunk's owner passes the final norm in. Being a ModuleList without the norm keeps the published parameter names:
    blocks.0.mixer.A_log, norm_f.weight, decoder_norm_f.weight.
    """

    def __init__(self, blocks: list[Block], final_drop_path: float, grad_checkpointing: bool) -> None:
        super().__init__(blocks)
        self.final_drop_path = final_drop_path
        self.grad_checkpointing = grad_checkpointing

    def forward(
        self,
        tokens_BLE: Tensor,
        norm: nn.Module,
        rotation: Tensor | None = None,
        collect: Collect | None = None,
        blocks: int | None = None,
    ) -> Tensor:
        """(B, L, E) -> (B, L, E) after `norm`.

        collect(index, state) receives residual + hidden after each block. blocks: run only so many, the first ones.
        """
        hidden, residual = tokens_BLE, None
        recompute = self.grad_checkpointing and torch.is_grad_enabled()
        for index, block in enumerate(islice(self, blocks)):
            hidden, residual = block(hidden, residual, rotation, recompute)
            if collect is not None:
                collect(index, residual + hidden)
        return norm(residual + drop_path(hidden, self.final_drop_path, self.training))


def build_trunk(
    config: ModelConfig, dim: int, depth: int, num_heads: int, attention_layers: Container[int] = ()
) -> Trunk:
    """A trunk of `depth` blocks of width `dim` with the config's mixer, and attention in `attention_layers`."""
    scan = {"d_state": config.d_state, "expand": config.expand}
    conv = {"d_conv": config.d_conv, "backend": config.scan_backend}
    make_mixer: dict[MixerName, Callable[[], nn.Module]] = {
        "mamba": partial(BiMamba, dim, depth, directions=config.directions, **scan, **conv),
        "mamba2": partial(Mamba2, dim, depth, head_dim=config.head_dim, directions=config.directions, **scan, **conv),
        "attention": partial(
            Attention, dim, num_heads, causal=config.directions == "forward", backend=config.scan_backend
        ),
    }
    make_attention = partial(
        ConvAttention, dim, depth, num_heads=config.attention_heads, head_dim=config.attention_head_dim, **conv
    )
    mixers = [make_attention() if i in attention_layers else make_mixer[config.mixer]() for i in range(depth)]
    rates = [0.0, *torch.linspace(0, config.drop_path_rate, depth, device="cpu").tolist()]
    blocks = [Block(dim, mixer, rate, config.mlp_ratio, config.scan_backend) for mixer, rate in zip(mixers, rates)]
    return Trunk(blocks, config.drop_path_rate, config.grad_checkpointing)
