"""timm's interface to features after any block: tokens or volumetric maps, and models pruned to those blocks.

Shape suffixes: B batch, C contrasts, Z Y X voxels, L tokens, E width.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from models.blocks.trunk import Collect, Trunk
from models.config import ModelConfig

OutputFormat = Literal["NLC", "NCDHW", "NCHW"]  # timm's helpers pass NCHW for maps


class Intermediates(nn.Module):
    """Methods of VolumeEncoder that give features after any of its blocks.

    There are no prefix tokens in timm's sense, so return_prefix_tokens changes nothing.
    """

    config: ModelConfig
    blocks: Trunk
    norm_f: nn.Module
    num_prefix_tokens = 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's description of the features after each block: module, channels, side of a token in voxels."""
        config = self.config
        return [
            {"module": f"blocks.{i}", "num_chs": config.embed_dim, "reduction": config.patch_size, "index": i}
            for i in range(config.depth)
        ]

    def forward_intermediates(
        self,
        volume_BCZYX: Tensor,
        indices: int | Sequence[int] | None = None,
        *,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: OutputFormat = "NLC",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """Final tokens (B, L, E) and the state residual + hidden after chosen blocks: (tokens, [state, ...]).

        indices: None for all blocks, an int for the last n, or a list of block numbers, negative ones from the end;
        the states have the same order. output_fmt: states (B, L, E), or maps (B, E, Z/p, Y/p, X/p) with NCDHW.
        norm: apply the final norm to the states too. stop_early: run only the blocks up to the last chosen one; the
        final tokens are then those of that block. intermediates_only: return only the list. output_dict: return a
        dictionary with timm's names. Raises ValueError for blocks that do not exist. Source: timm's VisionTransformer.
        """
        if output_fmt not in get_args(OutputFormat):
            raise ValueError(f'output_fmt="{output_fmt}" is not one of {", ".join(get_args(OutputFormat))}')
        wanted = self._block_numbers(indices)
        by_block: dict[int, Tensor] = {}

        def collect(index: int, state_BLE: Tensor) -> None:
            if index in wanted:
                state_BLE = self.norm_f(state_BLE) if norm else state_BLE
                by_block[index] = state_BLE if output_fmt == "NLC" else self.as_maps(state_BLE)

        tokens_BLE = self._features(volume_BCZYX, collect, max(wanted, default=-1) + 1 if stop_early else None)
        states = [by_block[index] for index in wanted]
        if output_dict:
            tokens = {} if intermediates_only else {"image_features": tokens_BLE}
            return {"image_intermediates": states, **tokens}
        return states if intermediates_only else (tokens_BLE, states)

    def get_intermediate_layers(
        self,
        volume_BCZYX: Tensor,
        n: int | Sequence[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> list[Tensor]:
        """The states after the last n blocks, or after the given blocks; reshape: as maps. The name is DINO's."""
        output_fmt: OutputFormat = "NCDHW" if reshape else "NLC"
        return self.forward_intermediates(volume_BCZYX, n, norm=norm, output_fmt=output_fmt, intermediates_only=True)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the states after these blocks do not need. Returns their numbers, which stay valid."""
        wanted = self._block_numbers(indices)
        depth = max(wanted, default=-1) + 1
        del self.blocks[depth:]
        attention = tuple(layer for layer in self.config.attention_layers if layer < depth)
        self.config = dataclasses.replace(self.config, depth=depth, attention_layers=attention)
        if prune_norm:
            self.norm_f = nn.Identity()
        if prune_head:
            self._prune_head()
        return wanted

    def as_maps(self, tokens_BLE: Tensor) -> Tensor:
        """(B, L, E) -> (B, E, Z/p, Y/p, X/p)."""
        return tokens_BLE.transpose(1, 2).unflatten(2, self.config.grid).contiguous()

    def _features(self, volume_BCZYX: Tensor, collect: Collect | None, blocks: int | None) -> Tensor:
        """Final tokens after the first `blocks` blocks, or all; `collect` receives the state after each of them."""
        raise NotImplementedError

    def _prune_head(self) -> None:
        """Remove what follows the encoder."""
        raise NotImplementedError

    def _block_numbers(self, indices: int | Sequence[int] | None) -> list[int]:
        depth = self.config.depth
        if indices is None:
            return list(range(depth))
        if isinstance(indices, int):
            if not 1 <= indices <= depth:
                raise ValueError(f"the last {indices} blocks do not exist: the model has {depth}")
            return list(range(depth - indices, depth))
        for index in indices:
            if not -depth <= index < depth:
                raise ValueError(f"block {index} does not exist: the model has blocks 0..{depth - 1}")
        return [index % depth for index in indices]
