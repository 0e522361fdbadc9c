"""Loading weights into a model with a report of what was and was not loaded; saving checkpoints."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from util.checkpoint.facts import OUR_CONFIG, fidelity_of, recorded, source_grid
from util.checkpoint.files import Content, read_checkpoint, save_checkpoint

__all__ = ["LoadReport", "load_pretrained", "load_weights", "read_checkpoint", "save_checkpoint"]
logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """Keys of the model that the checkpoint lacked (missing), keys of the checkpoint that were left out on purpose
    (ignored) or have no place in the model (unexpected, always empty after a successful load), and what was resized,
    in words."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


def load_pretrained(model: nn.Module, path: Path | str, *, any_fidelity: bool = False) -> LoadReport:
    """Load what fits from a pre-trained checkpoint, ours or a published one, into an autoencoder or a classifier.

    The model says what fits (adapt_state_dict); a key that is missing or unexpected beyond that raises ValueError, so a
    wrong checkpoint never trains from scratch unnoticed. So does a run of ours that was trained at another fidelity,
    unless `any_fidelity`: its config records a choice, so another one now is a forgotten flag. Published weights load
    at either fidelity.
    """
    content = read_checkpoint(path)
    _check_fidelity(content, model.config.fidelity, path, any_fidelity)  # pyright: ignore[reportAttributeAccessIssue,reportArgumentType]
    _compare_orders(content, model.config.scan_order, path)  # pyright: ignore[reportAttributeAccessIssue,reportArgumentType]
    grid = source_grid(content)
    if grid is None:
        logger.info("checkpoint %s does not record its img_size: taken to be the model's", path)
    try:
        adapted = model.adapt_state_dict(content["model"], grid)  # pyright: ignore[reportCallIssue]
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    own = model.state_dict()
    report = LoadReport(
        missing=[key for key in own if key not in adapted.state],
        unexpected=[key for key in adapted.state if key not in own],
        ignored=adapted.ignored,
        resized=adapted.resized,
    )
    if misfit := adapted.misfit(own):
        raise ValueError(f"checkpoint {path} does not fit the model: it {misfit}")
    model.load_state_dict(adapted.state, strict=False)
    logger.info(
        "loaded %s: %d tensors, starting fresh: %s, left out: %d",
        path,
        len(adapted.state),
        ", ".join(report.missing) or "nothing",
        len(report.ignored),
    )
    for line in report.resized:
        logger.info("  %s", line)
    return report


def load_weights(model: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load one of our own checkpoints into the model it was saved from, every key; its content is returned."""
    content = read_checkpoint(path)
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path} is not of this model: {str(error).splitlines()[1].strip()}") from error
    return content


def _check_fidelity(content: Content, wanted: str, path: Path | str, any_fidelity: bool) -> None:
    """Raise ValueError, or say in a line, where the checkpoint was trained at another fidelity than `wanted`."""
    found, how = fidelity_of(content)
    if found in (None, wanted):
        return
    if how == OUR_CONFIG and not any_fidelity:
        raise ValueError(
            f"checkpoint {path} was trained with fidelity={found} ({how}), the model computes {wanted}: "
            f"pass --fidelity {found}"
        )
    logger.info(
        "checkpoint %s was trained with fidelity=%s (%s), the model computes %s; --fidelity %s would compute as in "
        "its training",
        path,
        found,
        how,
        wanted,
        found,
    )


def _compare_orders(content: Content, wanted: str | None, path: Path | str) -> None:
    """Warn where tokens were scanned in another order than `wanted` (None: the fidelity's own): allowed, but what was
    learned of neighbours along the scan no longer holds."""
    fields = recorded(content, "model", "fields")
    if fields and fields.get("scan_order") != wanted:
        found, default = fields.get("scan_order"), "the default"
        fix = f"pass --scan_order {found}" if found else "leave out --scan_order"
        logger.warning(
            "checkpoint %s was trained with scan order %s, the model scans in %s: %s to keep it",
            path,
            found or default,
            wanted or default,
            fix,
        )
