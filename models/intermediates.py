"""Features after any block in timm's forms: tokens or volumetric maps, and models cut down to them."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from models.blocks.trunk import Collect, Trunk
from models.config import ModelConfig

OutputFormat = Literal["NLC", "NCDHW", "NCHW"]  # NCHW is what timm's helpers ask for where they mean maps


class Intermediates(nn.Module):
    """What VolumeEncoder adds to its blocks for those who want more than the final tokens.

    No token stands before those of the volume (timm's prefix tokens), so return_prefix_tokens changes nothing.
    """

    config: ModelConfig
    blocks: Trunk
    norm_f: nn.Module
    num_prefix_tokens = 0

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """timm's description of the features after each block: module, channels, voxels per token along a side."""
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

        indices: None for all blocks, an int for the last n, or block numbers (negative counts from the end), in whose
        order the states are given. output_fmt: states (B, L, E), or NCDHW maps (B, E, Z/p, Y/p, X/p). norm: the final
        norm is applied to the states too. stop_early: blocks after the last one wanted are not run, and the final
        tokens are those of that block. intermediates_only: only the list; output_dict: timm's names for both.
        Raises ValueError for blocks that are not there. Source: timm's VisionTransformer.
        """
        if output_fmt not in get_args(OutputFormat):
            raise ValueError(f'output_fmt="{output_fmt}" is not one of {", ".join(get_args(OutputFormat))}')
        wanted = self._block_numbers(indices)
        found: dict[int, Tensor] = {}

        def collect(index: int, state_BLE: Tensor) -> None:
            if index in wanted:
                state_BLE = self.norm_f(state_BLE) if norm else state_BLE
                found[index] = state_BLE if output_fmt == "NLC" else self.as_maps(state_BLE)

        tokens_BLE = self._features(volume_BCZYX, collect, max(wanted, default=-1) + 1 if stop_early else None)
        states = [found[index] for index in wanted]
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
        """The states after the last n blocks, or those named, by DINO's name for it; reshape: as maps."""
        output_fmt: OutputFormat = "NCDHW" if reshape else "NLC"
        return self.forward_intermediates(volume_BCZYX, n, norm=norm, output_fmt=output_fmt, intermediates_only=True)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the states after these blocks do not need; their numbers, which stay valid, are returned."""
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
        """Final tokens; `collect` is shown the state after each block, of the first `blocks` or all."""
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
                raise ValueError(f"the last {indices} blocks are not there: the model has {depth}")
            return list(range(depth - indices, depth))
        for index in indices:
            if not -depth <= index < depth:
                raise ValueError(f"block {index} does not exist: the model has blocks 0..{depth - 1}")
        return [index % depth for index in indices]
