"""The text of `python -m util.checkpoint inspect`: what a checkpoint holds, and what would load into which model."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from models.adapt import Kind, describe, kind_of
from models.config import Fidelity
from util.checkpoint.facts import Known, fidelity_of, image_size, source_grid
from util.checkpoint.files import SAFETENSORS, Content, check_finite, checkpoint_file, read_checkpoint
from util.checkpoint.matching import FIDELITIES, TARGETS, expected_report, position_rows, registry_name


def inspect_checkpoint(path: Path) -> list[str]:
    """The lines that `inspect` prints."""
    path = checkpoint_file(path)
    content = read_checkpoint(path)
    state = content["model"]
    shown = describe(state)
    types = Counter(str(value.dtype).removeprefix("torch.") for value in state.values())
    values = sum(value.numel() for value in state.values())
    rows = [
        ("file", str(path)),
        ("format", f"{'safetensors' if path.suffix == SAFETENSORS else 'torch'}: {', '.join(content)}"),
        ("weights", f"{len(state)} tensors, {values:,} values, buffers included"),
        ("dtype", ", ".join(f"{dtype} ({count})" for dtype, count in types.most_common())),
        ("kind", kind_of(state)),
        ("fields", _fields(shown)),
        ("img_size", _known(image_size(content))),
        ("grid", _grid(content, shown)),
        ("epoch", str(content.get("epoch", "not recorded"))),
        ("name", _known(registry_name(content))),
        ("fidelity", _known(fidelity_of(content, shown))),
    ]
    lines = [f"{title:<10}{text}" for title, text in rows]
    try:
        check_finite(state)
    except ValueError as error:
        return [*lines, f"load_pretrained refuses it: {error}"]
    loads = [
        f"  {target}, --fidelity {fidelity}: {_expected(content, target, fidelity)}"
        for target in TARGETS
        for fidelity in FIDELITIES
    ]
    return [*lines, "load_pretrained into", *loads]


def _expected(content: Content, target: Kind, fidelity: Fidelity) -> str:
    """What load_pretrained would report, on one line."""
    try:
        report = expected_report(content, target, fidelity)
    except ValueError as error:
        return f"refused: {error}"
    parts = [f"starting fresh: {', '.join(report.missing)}"] if report.missing else ["whole"]
    if report.ignored:
        parts.append(f"ignored: {len(report.ignored)} keys ({', '.join(_first_parts(report.ignored))})")
    return "; ".join([*parts, *report.resized])


def _first_parts(keys: Iterable[str]) -> list[str]:
    """The part of each key before its first dot, each once."""
    return list(dict.fromkeys(key.split(".")[0] for key in keys))


def _fields(shown: dict[str, Any]) -> str:
    fields = [f"{name}={value}" for name, value in shown.items() if name != "fidelity" and value != ()]
    return ", ".join(fields) or "none recognised"


def _grid(content: Content, shown: dict[str, Any]) -> str:
    patch_size = shown.get("patch_size")
    grid = source_grid(content, patch_size) if patch_size else None
    if grid is not None:
        return f"{' x '.join(map(str, grid))} tokens (z, y, x)"
    return f"{position_rows(content) or 'unknown'} tokens, their grid is not recorded"


def _known(known: Known) -> str:
    return known.how if known.value is None else f"{known.value} ({known.how})"
