"""Comparison of a frozen scan with its hidden attention as an explicit L x L matrix per channel, in float64.

The contribution of token j to position t is C_t exp(A (sum of the steps after j, up to t)) delta_j B_j, and D where
t = j; models/frozen_scan.py computes products with this matrix in linear time, without storing it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import frozen_scan
from models.blocks.mixers import BiMamba
from tests.verification.options import Case, Options
from tests.verification.peers import named
from tests.verification.tally import Tally

GRID = {"seqlen": [1, 2, 7, 27, 64, 216], "width": [8, 24], "d_state": [4, 16], "directions": ["both", "forward"]}


def run(options: Options) -> Tally:
    tally = Tally()
    torch.manual_seed(options.seed)
    for case in options.chosen(GRID):
        _same_influence(tally, case)
    return tally


def _same_influence(tally: Tally, case: Case) -> None:
    make = {"d_state": case["d_state"], "d_conv": 4, "expand": 2, "directions": case["directions"]}
    mixer = BiMamba(case["width"], 1, **make)
    for parameter in mixer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    tokens = torch.randn(2, case["seqlen"], case["width"])
    weight = torch.randn_like(tokens)
    scan = frozen_scan.frozen_scan(mixer, tokens)
    for suffix, values, output in zip(mixer.suffixes, scan.values, scan.outputs, strict=True):
        (gradient,) = torch.autograd.grad((output * weight).sum(), values)
        with torch.no_grad():
            carried_BIts = hidden_attention(mixer, tokens, values, suffix)
            read_EI = mixer.out_proj.weight.double() / len(mixer.suffixes)
            expected = torch.einsum("bits,bis,ei->bte", carried_BIts, values.double(), read_EI)
            slope = torch.einsum("bte,ei,bits->bis", weight.double(), read_EI, carried_BIts)
        pairs = {"output": (output, expected), "influence of tokens": (gradient, slope)}
        tally.near(f"direction {suffix or 'forward'}, {named(case)}", pairs, of_largest=1e-5)


def hidden_attention(mixer: BiMamba, tokens_BLE: Tensor, values_BIL: Tensor, suffix: str) -> Tensor:
    """(B, I, L, L): the contribution of token s to position t."""
    weights = mixer.direction(suffix)
    z_BLI = mixer.in_proj(tokens_BLE).chunk(2, dim=-1)[1].double()
    dt, B, C = (
        part.double() for part in weights.split_projection(F.linear(values_BIL.transpose(1, 2), weights.x_proj))
    )
    delta_BLI = F.softplus(F.linear(dt, weights.dt_proj.double()) + weights.dt_bias.double())
    if suffix == "_b":  # starts at the last token
        delta_BLI, B, C, z_BLI = (part.flip(1) for part in (delta_BLI, B, C, z_BLI))
    A, D = weights.A.double(), weights.D.double()
    passed_BLI = delta_BLI.cumsum(1)
    between_BtsI = passed_BLI[:, :, None] - passed_BLI[:, None]  # steps after s, up to t
    later = torch.ones(len(passed_BLI[0]), len(passed_BLI[0]), dtype=torch.bool).tril()
    attention = torch.zeros(*between_BtsI.shape, dtype=torch.float64)
    for state, rate_I in enumerate(A.unbind(1)):
        decay = torch.exp((between_BtsI * rate_I).masked_fill(~later[:, :, None], float("-inf")))
        attention += decay * (C[:, :, None, None, state] * B[:, None, :, None, state]) * delta_BLI[:, None]
    attention += torch.eye(len(later), dtype=torch.float64)[:, :, None] * D
    attention = (attention * F.silu(z_BLI)[:, :, None]).permute(0, 3, 1, 2)
    return attention.flip(2, 3) if suffix == "_b" else attention
