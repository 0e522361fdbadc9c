"""Export of a classifier to a graph that runs without this project: a program of torch.export, or ONNX."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from models.classifier import VolumeClassifier
from ops import portable_operators

INPUT, OUTPUT = "volume", "logits"
OPSET = 20  # the newest version of ONNX's operators that PyTorch writes without a conversion


def export_program(model: nn.Module) -> ExportedProgram:
    """`model` in evaluation mode on volumes (batch, C, Z, Y, X) of its size, with any batch, in operators of PyTorch.

    torch.export.export(model) would record our own, faster operators; such a file loads only in programs that import
    ops. Raises ValueError if the model is no classifier, because an autoencoder draws its mask at random.
    """
    if not isinstance(model, VolumeClassifier):
        raise ValueError(f"only classifiers are exported, this is a {type(model).__name__}: fine-tune one from it")
    config, weight = model.config, model.pos_embed
    example = torch.zeros(2, config.in_chans, *config.img_size, dtype=weight.dtype, device=weight.device)
    was_training = model.training
    try:
        with portable_operators(), torch.no_grad():
            return torch.export.export(model.eval(), (example,), dynamic_shapes=({0: Dim("batch")},))
    finally:
        model.train(was_training)


def export_onnx(model: nn.Module, facts: Mapping[str, str]) -> Any:
    """`export_program` as a torch.onnx.ONNXProgram with input "volume", output "logits" and `facts` in its metadata.

    Raises ImportError if requirements-export.txt is not installed.
    """
    program = torch.onnx.export(
        export_program(model), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT],
        opset_version=OPSET,
    )  # fmt: skip
    assert program is not None
    program.model.metadata_props.update(facts)
    return program
