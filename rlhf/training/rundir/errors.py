"""The exceptions of a stage, and the detection of a full disk and of exhausted memory."""

import errno

DISK_FULL = (
    "The disk of the run folders is full; make room (`manage.py prune_runs` lists what can be "
    "deleted), then retry the stage: it resumes from its checkpoint."
)


class InputError(Exception):
    """The stage can't use its input.

    The message is one sentence for a person: the error, its place, and the fix.
    """


class Stopped(Exception):
    """Raised by a stage after it has written its checkpoint because SIGTERM asked it to stop."""


def is_disk_full(error: Exception) -> bool:
    """True if the disk, or a quota on it, had no room."""
    # By message too: safetensors' error is not an OSError.
    no_room = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return no_room or "No space left on device" in str(error)


def is_out_of_memory(error: Exception) -> bool:
    """True if main memory or a GPU's memory ran out."""
    # By name: torch must not be imported here, and its CPU allocator raises a plain RuntimeError.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))
    )
