"""Load weights into a model, with a report of what was loaded and what was not."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from util.checkpoint.facts import OUR_CONFIG, Grid, fidelity_of, image_size, recorded, source_grid
from util.checkpoint.files import Content, check_finite, read_checkpoint, save_checkpoint

__all__ = ["LoadReport", "load_pretrained", "load_weights", "read_checkpoint", "save_checkpoint"]
logger = logging.getLogger(__name__)


@dataclass
class LoadReport:
    """What loading a checkpoint did.

    missing: keys of the model that the checkpoint lacks, which keep their initial values.
    unexpected: keys of the checkpoint that the model lacks; always empty after a successful load.
    ignored: keys of the checkpoint that were left out on purpose.
    resized: what was changed to fit, one sentence each.
    """

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)


class Adaptable(Protocol):
    """What load_pretrained needs of a model, beside being a module: a ModelConfig and models.adapt's AdaptedState."""

    config: Any

    def adapt_state_dict(self, state: dict[str, Tensor], source_grid: Grid | None = None) -> Any: ...

    def state_dict(self) -> dict[str, Tensor]: ...


def load_pretrained(
    model: nn.Module, path: Path | str, *, any_fidelity: bool = False, data: Mapping[str, Any] | None = None
) -> LoadReport:
    """Load what fits from a pre-trained checkpoint, ours or a published one, into an autoencoder or a classifier.

    The model decides what fits (adapt_state_dict). Any other key that is missing or unexpected raises ValueError, so
    that no model trains from random weights unnoticed. A run of ours that was trained at another fidelity raises
    ValueError too, unless `any_fidelity`. Published weights load at either fidelity. data: what config.json records of
    the data that the model will read; a warning says where the checkpoint was trained on other input.
    """
    content = read_checkpoint(path)
    target = cast(Adaptable, model)
    try:
        check_finite(content["model"])
        if not any_fidelity:
            check_fidelity(content, target.config.fidelity)
        adapted, report = adapt_checkpoint(target, content)
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    _log_differences(content, adapted.shown, target.config, path)
    _log_other_input(content, data or {}, path)
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


def adapt_checkpoint(model: Adaptable, content: Content) -> tuple[Any, LoadReport]:
    """What of a checkpoint `model` can load, as models.adapt's AdaptedState, and the report of loading it. Raises
    ValueError if it does not fit."""
    adapted = model.adapt_state_dict(content["model"], source_grid(content, model.config.patch_size))
    own = model.state_dict()
    if misfit := adapted.misfit(own):
        raise ValueError(f"it does not fit the model: it {misfit}")
    missing = [key for key in own if key not in adapted.state]
    return adapted, LoadReport(missing, ignored=adapted.ignored, resized=adapted.resized)


def load_weights(model: nn.Module, path: Path | str) -> dict[str, Any]:
    """Load every key of one of our own checkpoints into the model it was saved from, and return the file's content."""
    content = read_checkpoint(path)
    try:
        check_finite(content["model"])
    except ValueError as error:
        raise ValueError(f"checkpoint {path}: {error}") from error
    try:
        model.load_state_dict(content["model"])
    except RuntimeError as error:
        raise ValueError(f"checkpoint {path} is not of this model: {str(error).splitlines()[1].strip()}") from error
    return content


def check_fidelity(content: Content, wanted: str) -> None:
    """Raise ValueError if a run of ours was trained at another fidelity: its config records a choice, so that another
    one now is a forgotten option."""
    own = recorded(content, "model", "fields", "fidelity")
    if isinstance(own, str) and own != wanted:
        raise ValueError(
            f"it was trained with fidelity={own} ({OUR_CONFIG}), the model computes {wanted}: pass --fidelity {own}"
        )


def _log_other_input(content: Content, data: Mapping[str, Any], path: Path | str) -> None:
    """Warn where the checkpoint was trained on volumes of another normalisation or order of contrasts."""
    for name, what, fix in (
        ("normalize", "intensity normalisation", "pass --normalize {} to keep it"),
        ("contrasts", "contrasts", "its first layer expects {} in this order"),
    ):
        trained, now = recorded(content, "data", name), data.get(name)
        if trained is not None and now is not None and trained != now:
            texts = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in (trained, now)]
            advice = fix.format(texts[0])
            logger.warning("checkpoint %s was trained with %s %s, here it is %s: %s", path, what, *texts, advice)


def _log_differences(content: Content, shown: Mapping[str, Any], config: Any, path: Path | str) -> None:
    """Log where the model computes in another way than the checkpoint was trained with, which is allowed. shown: the
    fields that the checkpoint's tensors show."""
    if image_size(content).value is None:
        logger.info("checkpoint %s does not record its img_size: taken to be the model's", path)
    fidelity, how = fidelity_of(content, shown)
    if fidelity not in (None, config.fidelity):
        logger.info(
            "checkpoint %s was trained with fidelity=%s (%s), the model computes %s; --fidelity %s would compute as in "
            "its training",
            path,
            fidelity,
            how,
            config.fidelity,
            fidelity,
        )
    fields = recorded(content, "model", "fields")
    trained_order = fields.get("scan_order") if isinstance(fields, Mapping) else config.scan_order
    if trained_order != config.scan_order:  # what was learned of neighbours along the scan no longer holds
        fix = f"pass --scan_order {trained_order}" if trained_order else "leave out --scan_order"
        logger.warning(
            "checkpoint %s was trained with scan order %s, the model scans in %s: %s to keep it",
            path,
            trained_order or "the default",
            config.scan_order or "the default",
            fix,
        )
