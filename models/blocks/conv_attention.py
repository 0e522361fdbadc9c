"""The hybrid's attention: mamba_ssm's MHA as the paper's code configures it. (B, L, E) -> (B, L, E).

Shape suffixes: B batch, L tokens, E width.
"""

from torch import Tensor, nn

from models.blocks.mixers import attend, output_projection
from ops import Backend, causal_conv1d_fn


class ConvAttention(nn.Module):
    """Softmax attention over all tokens, after a causal depthwise convolution of queries, keys and values.

    The heads' width is independent of the model's: 16 heads of 128 on 512 channels in the paper's code. Parameter names
    are mamba_ssm's: in_proj, conv1d, out_proj. Only the convolution has a bias.
    """

    def __init__(
        self, dim: int, depth: int, *, num_heads: int, head_dim: int, d_conv: int, backend: Backend = "auto"
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.backend: Backend = backend
        inner = num_heads * head_dim
        self.in_proj = nn.Linear(dim, 3 * inner, bias=False)
        self.conv1d = nn.Conv1d(3 * inner, 3 * inner, d_conv, groups=3 * inner)
        self.out_proj = output_projection(inner, dim, depth)

    def forward(self, tokens_BLE: Tensor) -> Tensor:
        qkv = causal_conv1d_fn(
            self.in_proj(tokens_BLE).transpose(1, 2), self.conv1d.weight.squeeze(1), self.conv1d.bias,
            backend=self.backend,
        )  # fmt: skip
        q, k, v = qkv.transpose(1, 2).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out_proj(attend(q, k, v, False, self.backend).transpose(1, 2).flatten(2))
