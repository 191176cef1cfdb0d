"""Send files to a dataset repository of a hub, in one commit."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from annotation.data.destinations.target import Outgoing, SendError, Target


def _api(token: str) -> Any:
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise SendError(
            "Sending to a hub needs huggingface_hub: install the extra `push` on the web server."
        ) from error
    # From the environment now, not from when the library was imported.
    endpoint = os.environ.get("HF_ENDPOINT") or None
    return HfApi(endpoint=endpoint, token=token or False, library_name="ground-control")


def look(target: Target, token: str, *, is_private: bool) -> str:
    """What there is now, as one sentence; SendError if it may not be written or is more public."""
    api = _api(token)
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    try:
        repository = api.dataset_info(target.place)
    except RepositoryNotFoundError:
        return f"The repository is made, {'private' if is_private else 'public'}."
    except (HfHubHTTPError, OSError) as error:
        raise _sentence(error, token) from error
    if is_private and not repository.private:
        raise SendError(f"{target.place} exists and is public; choose “public” or another name.")
    return f"The repository exists, {'private' if repository.private else 'public'}; files are replaced."


def send(
    target: Target,
    files: Sequence[Outgoing],
    token: str,
    *,
    is_private: bool,
    message: str,
    on_progress: Callable[[int], None],
) -> str:
    """Upload the files and commit them together: others see all of them or none. Returns the address."""
    api = _api(token)
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.errors import HfHubHTTPError

    try:
        look(target, token, is_private=is_private)
        api.create_repo(target.place, repo_type="dataset", private=is_private, exist_ok=True)
        operations = []
        for file in files:
            operation = CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.path)
            api.preupload_lfs_files(target.place, [operation], repo_type="dataset")
            operations.append(operation)
            on_progress(file.bytes)
        info = api.create_commit(
            target.place, operations, commit_message=message, repo_type="dataset"
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _sentence(error, token) from error
    return str(info.commit_url)


def _sentence(error: Exception, token: str) -> SendError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return SendError("The hub refuses the token: it needs write access to this repository.")
    answer = " ".join(str(error).split())
    return SendError(f"The hub: {answer.replace(token, '…') if token else answer}"[:300])
