"""Where this code lives: in a checkout, whose folder holds config.ini and runs/, or installed as a package."""

from pathlib import Path

IS_INSTALLED = __name__ != "util.project"
FOLDER = Path.cwd() if IS_INSTALLED else Path(__file__).resolve().parents[1]
"""Holds config.ini, runs/ and demo_run/ unless an option names others: the checkout, or the working folder."""
