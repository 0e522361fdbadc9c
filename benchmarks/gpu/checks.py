"""Values and all gradients of the kernels on this GPU compared with float64. Each check runs in its own process."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.log import Log
from models import create_model
from ops import (
    Direction,
    add_norm_fn,
    bimamba_block_fn,
    bimamba_fn,
    causal_conv1d_fn,
    dispatch,
    gather_patches_fn,
    patch_error_fn,
    selective_scan_fn,
)
from ops.arguments import ScanInputs
from ops.reference import add_norm, patches

CUDA = torch.device("cuda")
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
TOLERANCES = {"fp32": 3e-5, "bf16": 3e-2, "fp16": 5e-3}  # of the largest value of each result
INNER, STATES, RANK = 768, 16, 24
Tensors = dict[str, Any]


def leaves(tensors: Tensors) -> dict[str, Tensor]:
    return {name: x for name, x in tensors.items() if isinstance(x, Tensor) and x.requires_grad}


def values_and_gradients(run: Callable[..., Any], tensors: Tensors, cotangent_seed: int = 1) -> dict[str, Tensor]:
    outputs = run(**tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator(CUDA).manual_seed(cotangent_seed)
    cotangents = [torch.randn(x.shape, generator=generator, device=CUDA, dtype=torch.float64) for x in outputs]
    wanted = leaves(tensors)
    grads = torch.autograd.grad(outputs, list(wanted.values()), [c.to(x.dtype) for c, x in zip(cotangents, outputs)])
    named = {f"out{i}" if i else "out": x.detach() for i, x in enumerate(outputs)}
    return named | {f"d{name}": g for name, g in zip(wanted, grads)}


def exact(tensors: Tensors) -> Tensors:
    return {
        name: x.detach().double().requires_grad_(x.requires_grad)
        if isinstance(x, Tensor) and x.is_floating_point()
        else x.detach().to(torch.complex128) if isinstance(x, Tensor) and x.is_complex() else x
        for name, x in tensors.items()
    }  # fmt: skip


def compare(log: Log, title: str, actual: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    errors = {}
    for name, wanted in expected.items():
        if wanted.numel():
            scale = max(wanted.abs().max().item(), 1e-30)
            errors[name] = ((actual[name].double() - wanted.double()).abs().max() / scale).item()
    bad = {name: f"{e:.1e}" for name, e in errors.items() if not e <= tolerance}  # NaN is bad
    worst = max(errors, key=lambda name: errors[name])
    verdict = "BAD " if bad else "ok  "
    log(f"{verdict} {title}: worst {worst} {errors[worst]:.1e} (tolerance {tolerance:.0e}) {bad or ''}")


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator(CUDA).manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, device=CUDA).to(dtype)


def scan_tensors(batch: int, length: int, inner: int, states: int, dtype: torch.dtype, groups: int = 1,
                 gated: bool = True) -> Tensors:  # fmt: skip
    """Arguments of a scan in a mixer's layouts: channel-last views, z next to x, B and C next to the step sizes."""
    xz = normal(batch, length, 2 * inner, dtype=dtype)
    projected = normal(batch, length, RANK + 2 * states * groups, dtype=dtype)
    _, B, C = projected.split([RANK, states * groups, states * groups], dim=-1)
    tensors = {
        "u": normal(batch, length, inner, dtype=dtype).transpose(1, 2),
        "delta": normal(batch, length, inner, dtype=dtype, seed=5).transpose(1, 2),
        "A": -torch.arange(1, states + 1, device=CUDA).float().repeat(inner, 1) * (1 + 0.1 * normal(inner, states)),
        "B": B.unflatten(-1, (groups, states)).permute(0, 2, 3, 1),
        "C": C.unflatten(-1, (groups, states)).permute(0, 2, 3, 1),
        "D": normal(inner),
        "z": xz[..., inner:].transpose(1, 2) if gated else None,
        "delta_bias": normal(inner) - 3,
    }
    return {name: x if x is None else x.detach().requires_grad_() for name, x in tensors.items()}


def check_scan(log: Log, precision: str) -> None:
    dtype, tolerance = DTYPES[precision], TOLERANCES[precision]
    cases: list[tuple[int, int, int, int, int, bool]] = [
        (1, 1000, INNER, STATES, 1, True), (2, 1, INNER, STATES, 1, True), (1, 17, INNER, STATES, 1, False),
        (2, 333, 96, 5, 3, True), (1, 4097, INNER, STATES, 1, True), (1, 130, 33, 64, 1, True),
        (1, 64_001, INNER, STATES, 1, True),
    ]  # fmt: skip
    for index, (batch, length, inner, states, groups, gated) in enumerate(cases):
        for reverse in (False, True) if length < 5000 else (index % 2 == 0,):
            tensors = scan_tensors(batch, length, inner, states, dtype, groups, gated)
            title = f"scan {precision} B={batch} L={length} I={inner} N={states} G={groups} z={gated} reverse={reverse}"

            def run(backend: Any, reverse: bool = reverse) -> Callable[..., Any]:
                return lambda **t: selective_scan_fn(**t, delta_softplus=True, reverse=reverse, backend=backend)

            plain = "reference" if length <= 1000 else "chunked"
            actual = values_and_gradients(run("triton"), tensors)
            compare(log, title, actual, values_and_gradients(run(plain), exact(tensors)), tolerance)
            again = values_and_gradients(run("triton"), tensors)
            same = all(torch.equal(actual[name], again[name]) for name in actual)
            log(f"{'ok  ' if same else 'BAD '} {title}: again bit for bit")


def check_conv(log: Log, precision: str) -> None:
    for batch, length, inner, width in ((1, 1000, INNER, 4), (2, 1, 384, 4), (1, 4097, 70, 3), (2, 64_001, INNER, 4)):
        for reverse in (False, True):
            x = normal(batch, length, 2 * inner, dtype=DTYPES[precision])[..., :inner].transpose(1, 2)
            tensors = {
                "x": x.detach().requires_grad_(),
                "weight": normal(inner, width).requires_grad_(),
                "bias": normal(inner).requires_grad_(),
            }

            def run(backend: Any, reverse: bool = reverse) -> Callable[..., Any]:
                return lambda **t: causal_conv1d_fn(**t, activation="silu", reverse=reverse, backend=backend)

            title = f"conv {precision} B={batch} L={length} I={inner} W={width} reverse={reverse}"
            expected = values_and_gradients(run("reference"), exact(tensors))
            compare(log, title, values_and_gradients(run("triton"), tensors), expected, TOLERANCES[precision])


def check_norm(log: Log, precision: str) -> None:
    for batch, length, width, has_all in ((2, 1000, 384, True), (1, 1, 192, True), (1, 4097, 384, False)):
        rotation = torch.polar(torch.ones(1, length, width // 2, device=CUDA), normal(1, length, width // 2))
        tensors = {
            "hidden": normal(batch, length, width, dtype=DTYPES[precision]).requires_grad_(),
            "residual": normal(batch, length, width, seed=3).requires_grad_() if has_all else None,
            "rotation": rotation if has_all else None,
            "weight": normal(width).requires_grad_(),
            "eps": 1e-5,
            "scale_B": torch.linspace(0, 2, batch, device=CUDA) if has_all else None,
        }
        with torch.autocast("cuda", dtype=DTYPES[precision], enabled=precision != "fp32"):
            actual = values_and_gradients(lambda **t: add_norm_fn(*t.values()), tensors)
        expected = values_and_gradients(lambda **t: add_norm.add_norm(*t.values()), exact(tensors))
        compare(log, f"norm {precision} {batch, length, width, has_all}", actual, expected, TOLERANCES[precision])


def _error(error: Callable[..., Tensor], volume: Tensor, ids: Tensor, patch: int, normalise: bool, pred: Tensor
           ) -> Tensor:  # fmt: skip
    return error(pred, volume, ids, patch, normalise)


def check_patches(log: Log, precision: str) -> None:
    for patch, side in ((16, 160), (8, 80), (4, 40)):
        volume, tokens = normal(2, 4, side, side, side), (side // patch) ** 3
        ids = torch.stack([torch.randperm(tokens, device=CUDA)[: tokens // 2] for _ in range(2)])
        for first in (False, True):
            same = torch.equal(gather_patches_fn(volume, ids, patch, contrasts_first=first),
                               patches.gather_patches(volume, ids, patch, first))  # fmt: skip
            log(f"{'ok  ' if same else 'BAD '} gather patch {patch} contrasts_first={first}")
        for normalise in (False, True):
            pred = normal(2, tokens // 2, 4 * patch**3, dtype=DTYPES[precision]).requires_grad_()
            of = ids, patch, normalise
            actual = values_and_gradients(partial(_error, patch_error_fn, volume, *of), {"pred": pred})
            expected = values_and_gradients(
                partial(_error, patches.patch_error, volume.double(), *of), exact({"pred": pred})
            )
            title = f"patch error {precision} {patch} normalise={normalise}"
            compare(log, title, actual, expected, TOLERANCES[precision])


def block_tensors(batch: int, length: int, width: int, dtype: torch.dtype) -> Tensors:
    inner, rank = 2 * width, -(-width // 16)
    tensors: Tensors = {
        "hidden": normal(batch, length, width, dtype=dtype),
        "residual": normal(batch, length, width, seed=3),
        "norm_weight": 1 + 0.1 * normal(width),
        "in_weight": normal(2 * inner, width) / width**0.5,
    }
    for suffix, seed in (("", 0), ("_b", 9)):
        tensors |= {
            f"conv_weight{suffix}": normal(inner, 4, seed=seed) / 2,
            f"conv_bias{suffix}": normal(inner, seed=seed) / 2,
            f"x_proj{suffix}": normal(rank + 2 * STATES, inner, seed=seed) / inner**0.5,
            f"dt_proj{suffix}": normal(inner, rank, seed=seed) / rank**0.5,
            f"dt_bias{suffix}": normal(inner, seed=seed) - 3,
            f"A{suffix}": -torch.arange(1, STATES + 1, device=CUDA).float().repeat(inner, 1),
            f"D{suffix}": normal(inner, seed=seed),
        }
    tensors["out_weight"] = normal(width, inner) / inner**0.5
    return {name: x.requires_grad_() for name, x in tensors.items()}


def both(tensors: Tensors) -> tuple[Direction, Direction]:
    names = Direction._fields
    return Direction(*(tensors[n] for n in names)), Direction(*(tensors[f"{n}_b"] for n in names))


def check_block(log: Log, precision: str, recompute: bool) -> None:
    """The whole block: sum, norm, projection, mixer. recompute: as one operator that keeps little memory."""
    for batch, length, width in ((1, 1000, 384), (2, 77, 192), (1, 8000, 384)):
        tensors = block_tensors(batch, length, width, DTYPES[precision])
        angles = normal(1, length, width // 2)
        rotation = torch.polar(torch.ones_like(angles), angles)

        def plain(rotation: Tensor = rotation, **t: Tensor) -> Any:
            normed, total = add_norm.add_norm(
                t["hidden"], t["residual"], rotation.to(torch.complex128), t["norm_weight"], 1e-5, None
            )
            xz = F.linear(normed, t["in_weight"])
            return bimamba_fn(xz, *both(t), t["out_weight"], backend="chunked"), total

        def fused(rotation: Tensor = rotation, **t: Tensor) -> Any:
            head = t["hidden"], t["residual"], rotation, t["norm_weight"], 1e-5, None
            if recompute:
                return bimamba_block_fn(*head, t["in_weight"], *both(t), t["out_weight"], backend="triton")
            normed, total = add_norm_fn(*head)
            return bimamba_fn(F.linear(normed, t["in_weight"]), *both(t), t["out_weight"], backend="triton"), total

        with torch.autocast("cuda", dtype=DTYPES[precision], enabled=precision != "fp32"):
            actual = values_and_gradients(fused, tensors)
        expected = values_and_gradients(plain, exact(tensors))
        title = f"block {precision} recompute={recompute} {batch, length, width}"
        compare(log, title, actual, expected, {"fp32": 1e-4, "bf16": 6e-2, "fp16": 1e-2}[precision])


def check_large_batch(log: Log, precision: str) -> None:
    """Offsets beyond 2^31: the last of six long samples compared with the same sample alone."""
    tensors = scan_tensors(6, 64_000, INNER, STATES, DTYPES[precision])
    with torch.no_grad():
        alone = {n: x[5:6] if n in ("u", "delta", "B", "C", "z") else x for n, x in tensors.items()}
        out, _ = dispatch.scan(ScanInputs(**tensors, delta_softplus=True), "triton")
        expected, _ = dispatch.scan(ScanInputs(**alone, delta_softplus=True), "triton")
    title = "scan of six samples of 64,000, the last one"
    compare(log, title, {"out": out[5:6]}, {"out": expected}, TOLERANCES[precision])


def check_model(log: Log, precision: str) -> None:
    """Loss and gradients of the masked autoencoder on the GPU compared with the CPU in float32."""
    torch.manual_seed(0)
    model = create_model("mae_3d_vim_small_patch16", img_size=96, norm_pix_loss=True, drop_path_rate=0.0)
    volume, noise = torch.randn(2, 4, 96, 96, 96), torch.rand(2, model.config.tokens)  # pyright: ignore

    def gradients(device: str, recompute: bool) -> dict[str, Tensor]:
        model.to(device).zero_grad()
        model.set_grad_checkpointing(recompute)  # pyright: ignore
        with torch.autocast(device, dtype=DTYPES[precision], enabled=device == "cuda" and precision != "fp32"):
            loss = model(volume.to(device), 0.75, noise.to(device), return_pred=False).loss
        loss.backward()
        grads = {n: p.grad.detach().cpu() for n, p in model.named_parameters() if p.grad is not None}
        return {"loss": loss.detach().cpu(), **grads}

    expected = gradients("cpu", False)
    for recompute in (False, True):
        title = f"model {precision} against the CPU's float32, checkpointing={recompute}"
        compare(
            log, title, gradients("cuda", recompute), expected, {"fp32": 1e-3, "bf16": 0.15, "fp16": 0.05}[precision]
        )


def check_parts(log: Log, precision: str) -> None:
    for check in (check_conv, check_norm, check_patches):
        log.attempt(check.__name__, partial(check, log, precision))


def check_blocks(log: Log, precision: str) -> None:
    for recompute in (False, True):
        check_block(log, precision, recompute)


CHECKS: dict[str, Callable[[Log], None]] = {
    f"{name}-{precision}": partial(check, precision=precision)
    for name, check, precisions in (
        ("scan", check_scan, DTYPES),
        ("parts", check_parts, DTYPES),
        ("block", check_blocks, DTYPES),
        ("large", check_large_batch, ("bf16",)),
        ("model", check_model, ("fp32", "bf16")),
    )
    for precision in precisions
}
