"""config.ini, the file with the paths of the prepared folders."""

import configparser
from pathlib import Path

from util.cli import nearest

MAX_BYTES = 64 * 1024  # config.ini holds a few paths
QUOTES = "\"'“”‘’"  # noqa: RUF001  people paste the paper's README, quotes included


def read_base_path(ini_path: Path | str, section: str = "brats_160", key: str = "BASE_PATH") -> Path:
    """The folder that `key` of `[section]` names. Quotes around it are removed and `~` is expanded.

    A relative path starts at the folder of the ini file, not at the working directory. Raises ValueError, with the fix,
    for a missing file, section or key, and for a path that is not a folder.
    """
    ini_path = Path(ini_path)
    if not ini_path.is_file():
        raise ValueError(f"{ini_path} is missing; create it with a section [{section}] holding {key} = FOLDER")
    if ini_path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{ini_path} is larger than {MAX_BYTES >> 10} KiB; it should hold a few paths only")
    parser = configparser.ConfigParser(interpolation=None)  # a "%" in a path is only a "%"
    try:
        parser.read_string(ini_path.read_text(encoding="utf-8-sig"))
    except (configparser.Error, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{ini_path} is not a readable ini file: {reason}; expected [{section}] first") from error
    if not parser.has_section(section):
        raise ValueError(f"{ini_path} has no section [{section}]{nearest(section, parser.sections())}; add it")
    if not parser.has_option(section, key):
        known = [name.upper() for name in parser.options(section)]
        raise ValueError(f"{ini_path} has no {key} in [{section}]{nearest(key, known)}; add {key} = FOLDER")
    value = parser.get(section, key).strip().strip(QUOTES).strip()
    if not value:
        raise ValueError(f"{key} in [{section}] of {ini_path} is empty; write the folder of the prepared data there")
    try:
        path = Path(value).expanduser()
        path = path if path.is_absolute() else ini_path.resolve().parent / path
        is_folder = path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # too long, an unknown user, an impossible name
        raise ValueError(f"{key} in [{section}] of {ini_path} is not a path: {error}; correct {key}") from error
    if not is_folder:
        raise ValueError(f"{key} in [{section}] of {ini_path} names {path}, which is not a folder; correct {key}")
    return path
