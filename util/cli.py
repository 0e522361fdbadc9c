"""What every command line shares: one-line errors, nearest-name hints, logging."""

import argparse
import difflib
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from util.project import IS_INSTALLED

logger = logging.getLogger(__name__)
IN_A_CHECKOUT = (
    "util", "models", "ops", "vis", "benchmarks", "engine_pretrain", "engine_finetune", "main_pretrain",
    "main_cr_finetune", "prepare_data", "probe", "compare", "predict",
)  # fmt: skip
OURS = (__name__.split(".")[0],) if IS_INSTALLED else IN_A_CHECKOUT
"""The loggers of this project."""
# Help texts of options that take weights, or the folder of a run.
WEIGHTS_FROM = "checkpoint, ours or a published one, exported folder or hf-hub:user/name[@revision]"
RUN_FROM = "run folder, exported folder or hf-hub:user/name[@revision]"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean "flair"?`, or an empty string when nothing known is close to `name`."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else ""


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds the default of an option to its help text, unless the text names it or the option has none."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help or "", action.default
        if default is None or default is False or default in ([], ()) or "default" in text:
            return text
        if isinstance(default, list | tuple):
            return f"{text} (default: {' '.join(map(str, default))})"
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser without abbreviations whose unknown options name the nearest known one."""

    def __init__(self, *args, **kwargs) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        unknown = [word.split("=")[0] for word in message.split() if word.startswith("-")]
        if message.startswith("unrecognized arguments") and unknown:
            message += nearest(unknown[0], self._known_options())
        self.exit(2, f"error: {message}. {self.prog} --help lists the options\n")

    def _known_options(self) -> set[str]:
        """Options of this parser and of its sub-commands."""
        known = set(self._option_string_actions)
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                known.update(*(set(parser._option_string_actions) for parser in action.choices.values()))
        return known


def setup_logging(level: int = logging.INFO) -> None:
    """Plain lines on standard error; libraries only from WARNING up."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr, force=True)
    for ours in ("__main__", *OURS):
        logging.getLogger(ours).setLevel(level)


def run(main: Callable[[], int | None]) -> None:
    """Run a CLI's main(): ValueError and OSError, our words to the user, become one line and exit code 2.

    Set MAMBA_MAE_TRACEBACK=1 to see the traceback instead.
    """
    if os.environ.get("MAMBA_MAE_TRACEBACK"):
        sys.exit(main())
    try:
        sys.exit(main())
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
