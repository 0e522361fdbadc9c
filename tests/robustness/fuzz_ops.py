"""Fuzz the public functions of ops with valid and invalid arguments, against backend="reference".

python -m tests.robustness.fuzz_ops --minutes 20

A call must return what the reference returns, or raise ValueError as the reference does. It is a finding if the process
dies, if another error is raised, if only one of the two raises, or if a finite value of the reference differs. Inputs
hold inf and nan in some calls. The exit status is 1 if there is a finding; each is printed with the seed of its call.
"""

import argparse
import faulthandler
import logging
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

import ops
from ops import Direction
from ops.backends import portable_operators
from util import cli

Arguments = dict[str, Any]
TOLERANCE = 2e-3
"""Relative to the largest value of a result: sums in another order, in float32."""
MOST_FINDINGS = 20


class Target(NamedTuple):
    """A public function, and how to draw valid arguments for it."""

    function: Callable[..., Any]
    draw: Callable[[random.Random], Arguments]


def _normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape).to(dtype)


def _sequence(draw: random.Random, batch: int, channels: int, length: int) -> Tensor:
    """(B, I, L), channels first or last in memory."""
    return _normal(batch, length, channels).transpose(1, 2) if draw.random() < 0.7 else _normal(batch, channels, length)


def _sizes(draw: random.Random) -> tuple[int, int, int, int]:
    """Batch, channels, length, states."""
    if isinstance(draw, _Sized):
        return draw.sizes
    return draw.choice([0, 1, 2, 3]), draw.randint(1, 40), draw.choice([0, 1, 2, 5, 16, 17, 40]), draw.randint(1, 20)


class _Sized(random.Random):
    """Draws everything but the sizes."""

    sizes: tuple[int, int, int, int] = (1, 1, 1, 1)


def _maybe(draw: random.Random, x: Any) -> Any:
    return x if draw.random() < 0.7 else None


def _scan(draw: random.Random) -> Arguments:
    batch, dim, length, states = _sizes(draw)
    groups = draw.choice([count for count in (1, 2, 3) if dim % count == 0])
    shape = draw.choice([(batch, states, length), (batch, groups, states, length), (dim, states)])
    return {
        "u": _sequence(draw, batch, dim, length),
        "delta": _sequence(draw, batch, dim, length).abs() / 4,
        "A": -_normal(dim, states).abs(),
        "B": _normal(*shape),
        "C": _normal(*shape),
        "D": _maybe(draw, _normal(dim)),
        "z": _maybe(draw, _sequence(draw, batch, dim, length)),
        "delta_bias": _maybe(draw, _normal(dim).abs() / 4),
        "delta_softplus": draw.random() < 0.5,
        "reverse": draw.random() < 0.5,
        "return_last_state": draw.random() < 0.3,
    }


def _conv(draw: random.Random) -> Arguments:
    batch, dim, length, _ = _sizes(draw)
    width = draw.choice([1, 2, 3, 4, 5, 16, 17])
    arguments: Arguments = {
        "x": _sequence(draw, batch, dim, length),
        "weight": _normal(dim, width),
        "bias": _maybe(draw, _normal(dim)),
        "activation": draw.choice([None, "silu"]),
        "reverse": draw.random() < 0.5,
    }
    kind = draw.choice(["plain", "index", "states"])
    if kind == "index":
        arguments["seq_idx"] = torch.randint(-1, 3, (batch, length)).sort().values
    if kind == "states":
        arguments["initial_states"] = _maybe(draw, _normal(batch, dim, width - 1))
        arguments["return_final_states"] = True
        arguments["final_states_out"] = _maybe(draw, torch.zeros(batch, dim, width - 1))
    return arguments


def _ssd(draw: random.Random) -> Arguments:
    batch, heads, length, states = _sizes(draw)
    groups = draw.choice([count for count in (1, 2) if heads % count == 0])
    return {
        "x": _normal(batch, length, heads, draw.randint(1, 5)),
        "dt": _normal(batch, length, heads).abs() / 4,
        "A": -_normal(heads).abs(),
        "B": _normal(batch, length, groups, states),
        "C": _normal(batch, length, groups, states),
        "D": _maybe(draw, _normal(heads)),
        "dt_bias": _maybe(draw, _normal(heads).abs() / 4),
        "dt_softplus": draw.random() < 0.5,
        "reverse": draw.random() < 0.5,
    }


def _direction(inner: int, states: int, width: int, rank: int) -> Direction:
    return Direction(
        _normal(inner, width),
        _normal(inner),
        _normal(rank + 2 * states, inner) / inner**0.5,
        _normal(inner, rank),
        _normal(inner) - 2,
        -_normal(inner, states).abs() - 0.1,
        _normal(inner),
    )


def _mixer(draw: random.Random) -> Arguments:
    batch, inner, length, states = _sizes(draw)
    sizes = inner, states, draw.choice([1, 2, 4, 17]), draw.randint(1, 4)
    return {
        "xz_BLx": _normal(batch, length, 2 * inner),
        "forward": _direction(*sizes),
        "backward": _direction(*sizes),
        "out_weight": _normal(draw.randint(0, 9), inner),
    }


def _one_way(draw: random.Random) -> Arguments:
    arguments = _mixer(draw)
    del arguments["backward"]
    return {"weights": arguments.pop("forward"), **arguments}


def _norm(draw: random.Random) -> Arguments:
    batch, pairs, length, _ = _sizes(draw)
    rotation = torch.polar(torch.ones(draw.choice([1, batch]), length, pairs), _normal(1, length, pairs))
    return {
        "hidden_BLE": _normal(batch, length, 2 * pairs),
        "residual_BLE": _maybe(draw, _normal(batch, length, 2 * pairs)),
        "rotation": _maybe(draw, rotation),
        "weight": _normal(2 * pairs),
        "eps": 1e-5,
        "scale_B": _maybe(draw, _normal(batch)),
    }


def _block(draw: random.Random) -> Arguments:
    norm, mixer = _norm(draw), _mixer(draw)
    inner, weight = mixer.pop("xz_BLx").shape[2] // 2, norm.pop("weight")
    return {**norm, "norm_weight": weight, "in_weight": _normal(2 * inner, len(weight)), **mixer}


def _volume(draw: random.Random) -> Arguments:
    patch, batch = draw.choice([1, 2, 3, 4, 8]), draw.choice([0, 1, 2])
    grid = [draw.randint(1, 3) for _ in range(3)]
    contrasts, kept = draw.randint(1, 5), draw.choice([0, 1, 4])
    return {
        "volume_BCZYX": _normal(batch, contrasts, *(side * patch for side in grid)),
        "ids_BK": torch.randint(0, grid[0] * grid[1] * grid[2], (batch, kept)),
        "patch_size": patch,
    }


def _gather(draw: random.Random) -> Arguments:
    arguments = _volume(draw)
    ids = _maybe(draw, arguments["ids_BK"])
    return {**arguments, "ids_BK": ids, "contrasts_first": draw.random() < 0.5}


def _values(arguments: Arguments) -> int:
    return arguments["volume_BCZYX"].shape[1] * arguments["patch_size"] ** 3


def _error(draw: random.Random) -> Arguments:
    arguments = _volume(draw)
    normalise = draw.random() < 0.5 and _values(arguments) > 1
    return {"pred_BKP": _normal(*arguments["ids_BK"].shape, _values(arguments)), **arguments, "normalise": normalise}


def _linear(draw: random.Random) -> Arguments:
    arguments, width = _error(draw), draw.randint(1, 9)
    values = arguments.pop("pred_BKP").shape[2]
    layer = {"hidden_BKE": _normal(*arguments["ids_BK"].shape, width), "weight_PE": _normal(values, width)}
    return {**layer, "bias_P": _normal(values), **arguments}


def _resampling(draw: random.Random) -> Arguments:
    batch = draw.choice([0, 1, 2])
    size = [draw.choice([1, 2, 5, 8, 16]) for _ in range(3)]
    matrix = torch.eye(3, 4).expand(batch, 3, 4) + 0.3 * _normal(batch, 3, 4)
    return {"volume_BCZYX": _normal(batch, draw.randint(1, 3), *size), "back_B34": matrix}


TARGETS = (
    Target(ops.selective_scan_fn, _scan),
    Target(ops.causal_conv1d_fn, _conv),
    Target(ops.ssd_scan_fn, _ssd),
    Target(ops.bimamba_fn, _mixer),
    Target(ops.mamba_fn, _one_way),
    Target(ops.add_norm_fn, _norm),
    Target(ops.bimamba_block_fn, _block),
    Target(ops.gather_patches_fn, _gather),
    Target(ops.patch_error_fn, _error),
    Target(ops.linear_patch_error_fn, _linear),
    Target(ops.resample_affine_fn, _resampling),
)
WITHOUT_BACKEND = (ops.gather_patches_fn, ops.resample_affine_fn)


def _spoil(draw: random.Random, x: Any) -> Any:
    """A value of another shape, type, device or range."""
    if isinstance(x, Direction):
        field = draw.choice(Direction._fields)
        return x._replace(**{field: _spoil(draw, getattr(x, field))})
    if not isinstance(x, Tensor):
        return draw.choice([None, -1, 0, 3, 2**40, 0.5, "text", float("nan")]) if type(x) is int else x
    if x.dtype == torch.int64 and draw.random() < 0.5:
        return torch.full_like(x, draw.choice([-1, 2**33, -(2**63), 2**63 - 1, 99_999]))
    changes: list[Callable[[], Any]] = [
        lambda: x[..., :-1],
        lambda: x[:1] if x.dim() and len(x) != 1 else x[:0],
        lambda: torch.cat([x, x]),
        lambda: x[None],
        lambda: x.flatten(),
        lambda: torch.zeros(0),
        lambda: x.to(torch.complex64),
        lambda: x.to(torch.int32),
        lambda: x.to("meta"),
        lambda: None,
    ]
    return draw.choice(changes)()


def _poison(draw: random.Random, x: Any) -> Any:
    """The tensor with one value that is not finite."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or not x.numel():
        return x
    x = x.clone()
    x[tuple(draw.randrange(size) for size in x.shape)] = draw.choice([float("inf"), float("-inf"), float("nan")])
    return x


def arguments_of(target: Target, seed: int) -> Arguments:
    """The arguments of one call: valid in about half of the calls."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    arguments = target.draw(draw)
    name = draw.choice(list(arguments))
    kind = draw.random()
    if kind < 0.4:
        arguments[name] = _spoil(draw, arguments[name])
    elif kind < 0.6:
        arguments[name] = _poison(draw, arguments[name])
    return arguments


def call(target: Target, arguments: Arguments, backend: str) -> list[Tensor] | str:
    """The results and the gradients of the tensors, or the name of the argument's error; other errors pass through."""
    if arguments.get("final_states_out") is not None:
        arguments = {**arguments, "final_states_out": arguments["final_states_out"].clone()}
    tensors = [x for value in arguments.values() for x in (value if isinstance(value, tuple) else (value,))]
    leaves = [x for x in tensors if isinstance(x, Tensor) and x.requires_grad]
    try:
        if target.function not in WITHOUT_BACKEND:
            out = target.function(**arguments, backend=backend)
        elif backend == "reference":
            with portable_operators():
                out = target.function(**arguments)
        else:
            out = target.function(**arguments)
    except ValueError as error:
        return f"ValueError: {error}"
    results = [x for x in (out if isinstance(out, tuple) else (out,)) if isinstance(x, Tensor)]
    roots = [x for x in results if x.requires_grad]
    grads: Any = [None] * len(leaves)  # an empty result may have no graph
    if roots and leaves:
        grads = torch.autograd.grad(
            [x.abs().sum() if x.is_complex() else x.float().sum() for x in roots], leaves, allow_unused=True
        )
    results += [torch.zeros_like(x) if grad is None else grad for x, grad in zip(leaves, grads)]
    return [x.detach() for x in results]


def _difference(actual: list[Tensor], expected: list[Tensor]) -> str | None:
    if len(actual) != len(expected):
        return f"{len(actual)} results and gradients, {len(expected)} of the reference"
    for number, (x, y) in enumerate(zip(actual, expected)):
        if x.shape != y.shape:
            return f"result {number}: shapes {tuple(x.shape)} and {tuple(y.shape)}"
        if x.is_meta:
            continue
        x, y = (torch.view_as_real(v.resolve_conj()) if v.is_complex() else v for v in (x, y))
        x, y = x.double(), y.double()
        both = x.isfinite() & y.isfinite()
        if not both.any():
            continue
        apart, scale = (x - y)[both].abs().max().item(), max(1.0, y[both].abs().max().item())
        if apart > TOLERANCE * scale:
            return f"result {number}: finite values differ by {apart:.3g}, the largest is {scale:.3g}"
    return None


def _differentiable(value: Any) -> Any:
    if isinstance(value, Direction):
        return Direction(*map(_differentiable, value))
    return value.detach().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


CONSTANT = ("volume_BCZYX", "back_B34", "scale_B", "final_states_out", "initial_states")


def attempt(target: Target, seed: int) -> tuple[str, str | None]:
    """("refused" or "computed", what is wrong or None) of the call with this seed."""
    return attempt_of(target, arguments_of(target, seed), gradients=seed % 2 == 1)


def grid_arguments(target: Target, seed: int, sizes: tuple[int, int, int, int]) -> Arguments:
    """Valid arguments with these sizes: batch, channels, length, states."""
    torch.manual_seed(seed)
    draw = _Sized(seed)
    draw.sizes = sizes
    return target.draw(draw)


def attempt_of(target: Target, arguments: Arguments, *, gradients: bool) -> tuple[str, str | None]:
    """`attempt` with these arguments."""
    if gradients:
        arguments = {name: x if name in CONSTANT else _differentiable(x) for name, x in arguments.items()}
    try:
        actual = call(target, arguments, "auto")
        expected = call(target, arguments, "reference")
    except Exception as error:  # every other type is a finding
        return "computed", f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(actual, str) or isinstance(expected, str):
        same = isinstance(actual, str) and isinstance(expected, str)
        return (
            "refused",
            None if same else f"only one of both raised: {actual if isinstance(actual, str) else expected}",
        )
    return "computed", _difference(actual, expected)


def fuzz(targets: tuple[Target, ...], seconds: float, seed: int = 0) -> tuple[Counter[str], list[str]]:
    """Counts of calls by outcome within `seconds`, and findings."""
    counts: Counter[str] = Counter()
    findings: list[str] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and len(findings) < MOST_FINDINGS:
        for target in targets:
            outcome, wrong = attempt(target, seed)
            counts[outcome] += 1
            if wrong:
                findings.append(f"{target.function.__name__}, seed {seed}: {wrong}")
        seed += 1
    return counts, findings


def main(argv: list[str] | None = None) -> int:
    """0, or 1 if there are findings."""
    parser = cli.Parser(prog="python -m tests.robustness.fuzz_ops", description="Fuzz the public functions of ops.")
    parser.add_argument("--minutes", type=float, default=20.0, help="time of all functions together")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first call")
    args: argparse.Namespace = parser.parse_args(argv)
    if not 0 < args.minutes < 1e6:
        parser.error(f"--minutes {args.minutes:g}: give more than 0, in minutes")
    counts, findings = fuzz(TARGETS, args.minutes * 60, args.seed)
    for finding in findings:
        print(finding)
    print(f"{counts['computed']} calls computed, {counts['refused']} refused, {len(findings)} findings")
    return int(bool(findings))


if __name__ == "__main__":
    faulthandler.enable()  # prints where the process was if a kernel ends it
    warnings.simplefilter("ignore")
    logging.getLogger("ops").setLevel(logging.ERROR)
    sys.exit(main())
