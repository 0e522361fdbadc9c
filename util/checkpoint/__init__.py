"""Checkpoints: loading weights into a model with a report, files that are read without running code.

python -m util.checkpoint inspect FILE             what a checkpoint holds
python -m util.checkpoint convert IN OUT           .pth (ours or a published one) <-> .safetensors
python -m util.checkpoint export RUN OUT           a trained model for other programs
python -m util.checkpoint push FOLDER USER/NAME    an exported folder to the Hugging Face hub
"""

from util.checkpoint.files import read_checkpoint, save_checkpoint
from util.checkpoint.loading import LoadReport, load_pretrained, load_weights

__all__ = ["LoadReport", "load_pretrained", "load_weights", "read_checkpoint", "save_checkpoint"]
