"""Names on a model hub, with the revision that is meant: `owner/name@9fceb02d…` (a commit, 40 digits).

A name alone is whatever its owner has put there last. With a commit it is the same files for everybody,
permanently.
"""

import re

from rlhf.training.rundir.errors import InputError

PINNED = re.compile(
    r"(?P<name>[\w-][\w.-]*(?:/[\w-][\w.-]*)?)@(?P<revision>[0-9a-f]{40})", re.ASCII
)
FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What a model is read from: no pickles, no code."""


def local_folder(name: str, what: str) -> str:
    """The folder of a pinned name, fetched unless it is in the hub client's cache; other names as they
    are. `InputError` where it can't be had."""
    pinned = PINNED.fullmatch(name)
    if pinned is None:
        return name
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(pinned["name"], revision=pinned["revision"], allow_patterns=FILES)
    except Exception as error:
        raise InputError(
            f"Revision {pinned['revision'][:12]} of the {what} {pinned['name']!r} is not in the cache of "
            f"this machine and can't be had from the model hub ({type(error).__name__}). Fetch it with "
            f"`hf download {pinned['name']} --revision {pinned['revision']}`, or check the network."
        ) from error
