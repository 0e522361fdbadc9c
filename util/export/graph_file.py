"""Write a trained classifier as a graph that other runtimes load: .pt2 (torch.export) or .onnx."""

import importlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from models.export import INPUT, OPSET, OUTPUT, export_onnx, export_program
from util.checkpoint.facts import recorded
from util.files.atomic import atomic_write
from util.patient.who_2021 import CLASS_NAMES

if TYPE_CHECKING:
    from util.export.trained import Trained

logger = logging.getLogger(__name__)
TOLERANCE = 1e-4  # largest difference of logits between another runtime and PyTorch
FACTS_FILE = "facts.json"  # inside a .pt2 file
INSTALL = "pip install -r requirements-export.txt"
NORMALISED = {
    "zscore": "each contrast minus its mean over the brain, divided by its standard deviation there (population); "
    "the brain is where any contrast is above 0; background is 0",
    "zscore-joint": "the volume minus the mean of all contrasts and voxels, divided by their standard deviation",
    "range": "as prepared, from 0 to 1",
}


def write_program(trained: "Trained", destination: Path) -> None:
    """Write OUT.pt2, which torch.export.load reads without this project."""
    program, facts = export_program(trained.model), facts_of(trained)
    _check_logits(trained, program.module())
    with atomic_write(destination) as file:
        torch.export.save(program, file, extra_files={FACTS_FILE: json.dumps(facts)})
    _log_facts(destination, facts)


def write_onnx(trained: "Trained", destination: Path) -> None:
    """Write OUT.onnx, after comparing its logits in onnxruntime with those of PyTorch."""
    facts = facts_of(trained)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ValueError(f"OUT {destination} needs {package} ({error}): {INSTALL}") from error
    import onnxruntime

    content = export_onnx(trained.model, facts).model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    _check_logits(trained, lambda volume: torch.from_numpy(session.run([OUTPUT], {INPUT: volume.numpy()})[0]))
    with atomic_write(destination) as file:
        file.write(content)
    _log_facts(destination, facts)


def facts_of(trained: "Trained") -> dict[str, str]:
    """What a user of the file must know about its input and output, as text by topic."""
    config, content = trained.config, trained.content
    contrasts, normalize, label = (
        recorded(content, *path) for path in (("data", "contrasts"), ("data", "normalize"), ("label_type",))
    )
    z, y, x = config.img_size
    facts = {
        "input": f"{INPUT}: float32 (batch, {config.in_chans}, {z}, {y}, {x}), a prepared volume, axes z, y, x",
        "contrasts": ", ".join(contrasts or ()) or "not recorded",
        "normalisation": f"{normalize}: {NORMALISED[normalize]}" if normalize in NORMALISED else "not recorded",
        "output": f"{OUTPUT}: (batch, {config.num_classes}), before the softmax",
        "model": str(recorded(content, "model", "name")),
        "checkpoint": trained.checkpoint.name,
        "use": "research only, not a medical device",
    }
    if label in CLASS_NAMES:
        names = ", ".join(CLASS_NAMES[label])
        facts |= {"predicts": label, "classes": names}
    if "fold" in (content.get("config") or {}):
        facts["fold"] = str(recorded(content, "fold"))
    if trained.decision is not None:
        facts["decision"] = json.dumps(asdict(trained.decision))
    return facts


def _check_logits(trained: "Trained", run: Callable[[Tensor], Tensor]) -> None:
    """Log the largest difference between the logits of `run` and of the model. RuntimeError above TOLERANCE."""
    config = trained.config
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(3, config.in_chans, *config.img_size, generator=generator)
    with torch.no_grad():
        difference = (run(volume) - trained.model(volume)).abs().max().item()
    if not difference <= TOLERANCE:  # also if it is NaN
        raise RuntimeError(f"the exported graph's logits differ from the model's by {difference:.1e}")
    logger.info("logits of 3 random volumes differ by at most %.1e from the model's", difference)


def _log_facts(destination: Path, facts: dict[str, str]) -> None:
    for name, text in facts.items():
        logger.info("  %s: %s", name, text)
    if destination.suffix == ".onnx":
        logger.info("  ONNX opset: %d; the lines above are in the file's metadata", OPSET)
    else:
        logger.info("  the lines above are in its extra file %s", FACTS_FILE)
