"""Models of 3D Mamba MAE. `create_model` is the one door; timm.create_model finds the same names after this import."""

from models.classifier import VolumeClassifier
from models.config import ModelConfig
from models.mae import MAEOutput, MaskedAutoencoder3D
from models.registry import create_model, list_models

__all__ = ["MAEOutput", "MaskedAutoencoder3D", "ModelConfig", "VolumeClassifier", "create_model", "list_models"]
