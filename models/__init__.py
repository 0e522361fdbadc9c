"""Models of 3D Mamba MAE. `create_model` makes them by name; timm.create_model too, after this import."""

from models.ar import AutoregressiveModel3D
from models.classifier import VolumeClassifier
from models.config import ModelConfig
from models.mae import MaskedAutoencoder3D
from models.predictor import MAEOutput, PatchPredictor
from models.registry import create_model, list_models

__all__ = [
    "AutoregressiveModel3D",
    "MAEOutput",
    "MaskedAutoencoder3D",
    "ModelConfig",
    "PatchPredictor",
    "VolumeClassifier",
    "create_model",
    "list_models",
]
