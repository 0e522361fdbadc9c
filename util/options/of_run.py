"""Options of a run that goes on or is scored again: as its config.json has them, so that no default of a command line
takes the place of what the run was started with.

--resume, --eval, and --folds into a folder that holds a run already, take every option that defines the run from that
run. An option on the command line may repeat the run's value; another value is refused, with the option's name, unless
--override says that it is meant. Free options (`Option.is_free`) are those of the command line alone.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from util.checkpoint.files import read_checkpoint
from util.hub.exported_folder import is_exported
from util.options import build
from util.options.build import Option, list_options
from util.run_folder import CONFIG, fold_folders
from util.runs import checkpoints, read_config, start_run

logger = logging.getLogger(__name__)
OptionsT = TypeVar("OptionsT")
PLACE_OF_DATA = ("data", "name_dataset", "config")  # together they name one folder
LISTED = 5  # differing options that a message explains
Changes = dict[str, list[Any]]
"""By option: the run's value and the other one, as JSON values."""


@dataclass(frozen=True)
class StoredRun:
    """What a run records of itself. place: where that stands, for messages. values: of every option, by name."""

    place: Path
    config: Mapping[str, Any]
    values: dict[str, Any]

    @property
    def data_root(self) -> Path | None:
        root = self.config.get("data", {}).get("root")
        return None if root is None else Path(root)

    @property
    def sheet(self) -> Path | None:
        labels = self.config.get("data", {}).get("labels")
        return None if labels is None else Path(labels)


def parse(program: type[OptionsT], argv: Sequence[str] | None, description: str, kind: str) -> OptionsT:
    """The options that a command line gives, those of the run that it continues or scores for all others.

    kind: of that run. Raises ValueError where the two contradict each other, unless --override is given.
    """
    given = build.given_options(program, argv, description)
    runs = stored_runs(program, given, kind)
    if not runs:
        return build.make(program, given)
    values = _with_values_of(runs[0], program, given)
    options = build.make(program, values)
    for run in runs:
        if (found := differences(options, run)) and not values.get("override"):
            raise ValueError(_refusal(run, found, given))
    return options


def stored_runs(program: type, given: Mapping[str, Any], kind: str) -> list[StoredRun]:
    """The runs that these options continue or score: of the checkpoint that --resume names, and of --output_dir."""
    values = {one.name: one.default for one in list_options(program)} | dict(given)
    resume, is_eval, folder = values["resume"], values.get("eval", False), values["output_dir"]
    if values["overwrite"]:
        for flag, is_given in (("--resume", resume is not None), ("--eval", is_eval)):
            if is_given:
                raise ValueError(
                    f"{flag} uses the run in {folder}, which --overwrite would remove: drop one of the two"
                )
        return []
    found = []
    if resume not in (None, "auto") and kind == "pretrain":  # folds are continued from their own checkpoints only
        if (own := Path(resume).parent / CONFIG).is_file() and not is_exported(own.parent):
            found.append((own, read_config(own.parent)))
        elif isinstance(inside := read_checkpoint(resume).get("config"), Mapping):
            found.append((Path(resume), inside))
    uses_folder = is_eval or resume is not None or values.get("folds") is not None
    if uses_folder and (folder / CONFIG).is_file() and not is_exported(folder):
        found.append((folder / CONFIG, read_config(folder)))
    return [run for place, config in dict(found).items() if (run := stored_run(program, place, config, kind))]


def stored_run(program: type, place: Path, config: Mapping[str, Any], kind: str) -> StoredRun | None:
    """The options that a config records; None, with a warning, for one that is older than that record."""
    if config.get("kind", kind) != kind:
        raise ValueError(f"{place} is of a {config['kind']} run, not of a {kind} run: choose another --output_dir")
    stored = config.get("args")
    if not isinstance(stored, Mapping):
        logger.warning("%s does not record the options of the run: give the same ones as in its training", place)
        return None
    try:
        return StoredRun(place, config, build.restored(program, stored))
    except ValueError as error:
        raise ValueError(f"{place}: {error}; restore the file, or train again") from error


def differences(options: Any, run: StoredRun) -> Changes:
    """The options that define a run and differ between `options` and `run`."""
    now = build.by_name(options)
    found: Changes = {}
    for one in list_options(type(options)):
        is_path_of_data = one.name in PLACE_OF_DATA or (one.name == "labels" and run.sheet is not None)
        if not one.is_free and not is_path_of_data and not _same(one, now[one.name], run.values[one.name]):
            found[one.name] = list(build.plain_values({"was": run.values[one.name], "is": now[one.name]}).values())
    if run.data_root is not None:
        root = options.data.root(options.data_key).resolve()
        if root != run.data_root.resolve() and run.data_root.is_dir():
            found[_name_of_data(now, run)] = [str(run.data_root), str(root)]
        elif root != run.data_root.resolve():
            logger.warning(
                "%s was trained on %s, which is gone: taking %s in its place", run.place, run.data_root, root
            )
    sheet = now.get("labels")
    if run.sheet is not None and sheet is not None and sheet.resolve() != run.sheet.resolve() and run.sheet.exists():
        found["labels"] = [str(run.sheet), str(sheet.resolve())]
    if now.get("use_z_score") and "normalize" in found:  # the flag that was given for it
        found.pop("normalize")
        found["use_z_score"] = [False, True]
    return found


def _name_of_data(now: Mapping[str, Any], run: StoredRun) -> str:
    """The option that names the prepared folder."""
    if now["data"] is not None:
        return "data"
    return "name_dataset" if now["name_dataset"] != run.values["name_dataset"] else "config"


def changes(options: Any, kind: str) -> Changes:
    """What --override changes of the runs that these options continue or score; nothing where there are none."""
    if options.run.overwrite:
        return {}
    found = [differences(options, run) for run in stored_runs(type(options), build.by_name(options), kind)]
    return {name: change for one in reversed(found) for name, change in one.items()}


def changes_of_folds(options: Any, folds: Iterable[int]) -> dict[int, Changes]:
    """Where the folds that a run holds were trained with other options than these; nothing for older runs, whose folds
    record none. ValueError where such a fold is one of `folds`, which are to be trained or scored, unless --override
    is given."""
    found: dict[int, Changes] = {}
    for fold, folder in fold_folders(options.run.output_dir).items():
        run = _of_fold(options, folder)
        if run is not None and (differing := differences(options, run)):
            found[fold] = differing
            if fold in folds and not options.run.override:
                raise ValueError(_refusal(run, differing, {}))
    return found


def start_fold(options: Any, folder: Path, config: dict[str, Any]) -> None:
    """Write the config.json of a fold that is about to be trained, or add to its history where it goes on."""
    run = _of_fold(options, folder)
    if run is None or not checkpoints(folder):
        (folder / CONFIG).unlink(missing_ok=True)
    changed = {} if run is None else differences(options, run)
    start_run(folder, config, resume=True, overwrite=False, changed=changed)


def _of_fold(options: Any, folder: Path) -> StoredRun | None:
    place = folder / CONFIG
    if not place.is_file() or is_exported(folder):
        return None
    return stored_run(type(options), place, read_config(folder), "finetune")


def _with_values_of(run: StoredRun, program: type, given: Mapping[str, Any]) -> dict[str, Any]:
    values = {one.name: run.values[one.name] for one in list_options(program) if not one.is_free} | dict(given)
    if "use_z_score" in given:
        values["normalize"] = given.get("normalize")
    elif "normalize" in given:
        values["use_z_score"] = False
    if run.data_root is not None and not any(name in given for name in PLACE_OF_DATA):
        if not run.data_root.is_dir():
            raise ValueError(f"{run.place} was trained on {run.data_root}, which is no folder: name it with --data")
        values["data"] = run.data_root
    elif "data" not in given:
        values["data"] = None
    if run.sheet is not None and "labels" not in given and run.sheet.exists():
        values["labels"] = run.sheet
    return values


def _same(one: Option, first: Any, second: Any) -> bool:
    if one.name == "use_z_score":  # only another way to say --normalize zscore
        return True
    if one.meaning is not None:
        first, second = one.meaning(first), one.meaning(second)
    if isinstance(first, Path) and isinstance(second, Path):
        return first == second or first.resolve() == second.resolve()
    return first == second


def _refusal(run: StoredRun, found: Changes, given: Mapping[str, Any]) -> str:
    shown = [f"--{name} {_words(was)}, not {_words(now)}" for name, (was, now) in list(found.items())[:LISTED]]
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    drop = ", ".join(f"--{name}" for name in found if name in given)
    leave = f"leave out {drop} to keep its values" if drop else "repeat its options, or choose another --output_dir"
    return (
        f"{run.place} was made with {'; '.join(shown)}{more}: {leave}, or add --override to depart from them, which "
        "config.json then records"
    )


def _words(value: Any) -> str:
    if value is None or value == []:
        return "the default"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
