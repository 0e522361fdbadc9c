"""Checkpoints: reading and writing files, and loading weights into a model with a report.

python -m util.checkpoint inspect FILE             what a checkpoint holds and what loads into which model
python -m util.checkpoint convert IN OUT           .pth (ours or a published one) <-> .safetensors
python -m util.checkpoint export RUN OUT           write a trained model for other programs
python -m util.checkpoint push FOLDER USER/NAME    upload an exported folder to the Hugging Face hub
"""

from util.checkpoint.files import read_checkpoint, save_checkpoint
from util.checkpoint.loading import LoadReport, load_pretrained, load_weights

__all__ = ["LoadReport", "load_pretrained", "load_weights", "read_checkpoint", "save_checkpoint"]
