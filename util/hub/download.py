"""Download exported models from the Hugging Face hub (`hf-hub:user/name[@revision]`), and upload them.

huggingface_hub handles tokens, cache and endpoint (`hf auth login`, HF_TOKEN, HF_HOME, HF_ENDPOINT).
"""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from util.hub.exported_folder import (
    CARD,
    CONFIG,
    FILES,
    RESULTS,
    WEIGHTS,
    check_digest,
    files_of,
    read_exported_config,
    weights_of,
)
from util.run_folder import fold_folders

logger = logging.getLogger(__name__)
SCHEME = "hf-hub:"
NAME = re.compile(r"hf-hub:([\w.-]+/[\w.-]+)(?:@(\S+))?")
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_hub_name(source: Path | str) -> bool:
    return str(source).startswith(SCHEME)


def local_path(source: Path | str, *, folds: bool = False) -> Path:
    """The path of `source` on this machine. An hf-hub: name is downloaded into huggingface_hub's cache.

    folds: also download the weights of all folds of a fine-tuned run. Raises ValueError, with the reason, if the hub
    does not give the model.
    """
    if not is_hub_name(source):
        return Path(source)
    return _snapshot(*_parsed(source), folds)


def pinned(source: Path | str) -> str:
    """`source` as a run records it: an absolute path, or a name on the hub with its present commit."""
    if not is_hub_name(source):
        return str(Path(source).resolve())
    return f"{SCHEME}{_parsed(source)[0]}@{local_path(source).name}"


def push(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload the exported files of a folder as one commit to `repository` and return the commit's address.

    A missing repository is created. Other files in the folder are not uploaded. Raises ValueError for an incomplete
    folder, a missing login, and an upload that the hub refuses.
    """
    from huggingface_hub import HfApi, get_token

    if not NAME.fullmatch(SCHEME + repository) or "@" in repository:
        raise ValueError(f"{repository} is not the name of a model on the hub: give user/name")
    for path in (folder, *fold_folders(folder).values()):
        check_digest(weights_of(path))
    if not (folder / CARD).is_file():
        raise ValueError(f"{folder / CARD}, the model card, is missing: export the model again")
    if get_token() is None:
        raise ValueError(f"not logged in to the hub: {LOG_IN} (a token that may write)")
    with _explained(repository):
        api = HfApi(library_name="mamba-mae-3d")
        api.create_repo(repository, private=private or None, exist_ok=True)
        if private and not api.model_info(repository).private:
            raise ValueError(f"{repository} exists and is public: make it private on its page, or choose another name")
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=[path.relative_to(folder).as_posix() for path in files_of(folder)],
            delete_patterns=list(FILES),  # of an earlier export that had more folds
            commit_message=f"{read_exported_config(folder)['architecture']}, exported",
        )
    return str(commit.commit_url)


def _parsed(source: Path | str) -> tuple[str, str | None]:
    match = NAME.fullmatch(str(source))
    if match is None:
        raise ValueError(
            f"{source} is not the name of a model on the hub: write hf-hub:user/name or hf-hub:user/name@v1.0"
        )
    return match[1], match[2]


@cache  # so that all folds of a run come from one snapshot, even if another is pushed meanwhile
def _snapshot(repository: str, revision: str | None, folds: bool) -> Path:
    from huggingface_hub import snapshot_download

    wanted = list(FILES) if folds else [CONFIG, WEIGHTS, CARD, RESULTS]
    with _explained(repository, revision):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    logger.info("hf-hub:%s: %s", repository, folder)
    return folder


@contextmanager
def _explained(repository: str, revision: str | None = None) -> Iterator[None]:
    """Raise errors of huggingface_hub as ValueErrors that say what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.RevisionNotFoundError as error:
        raise ValueError(
            f"{repository} on the hub has no revision {revision}: name one that its page lists, or none"
        ) from error
    except errors.GatedRepoError as error:
        raise ValueError(f"{repository} is gated: ask for access on its page, then {LOG_IN}") from error
    except errors.RepositoryNotFoundError as error:
        raise ValueError(
            f"the hub has no model {repository} that you may read: check the name; for a private one {LOG_IN}"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        fix = f"{LOG_IN} with a token that may do this" if status in (401, 403) else "try again later"
        raise ValueError(f"the hub refuses {repository} ({status} {error.server_message or ''}): {fix}") from error
    except (
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        errors.HTTPError,
    ) as error:  # the last: httpx's
        raise ValueError(
            f"the hub cannot be reached, and {repository} is not in the cache of this machine: connect, unset "
            "HF_HUB_OFFLINE, or give a folder"
        ) from error
