"""The address of a place outside, and whether the operator allows it."""

import re
from typing import NamedTuple

from annotation.data.snapshot_files import SnapshotError

HUB = re.compile(r"hf://datasets/([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})")
S3 = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/((?:[A-Za-z0-9_.=-]+/)*)")


class SendError(SnapshotError):
    """Why a version cannot be sent, in one sentence for the person who asked."""


class Target(NamedTuple):
    """`place` is a repository or a bucket; `prefix` begins the names of objects in a bucket."""

    kind: str
    place: str
    prefix: str = ""


class Outgoing(NamedTuple):
    """One file that is sent."""

    name: str
    path: str
    bytes: int
    sha256: str


def parse_target(text: str) -> Target:
    """Read `hf://datasets/ORGANIZATION/NAME` or `s3://BUCKET/PREFIX/`; SendError for anything else."""
    if match := HUB.fullmatch(text):
        return Target("hub", match[1])
    match = S3.fullmatch(text if text.endswith("/") else f"{text}/")
    if match and not any(set(part) == {"."} for part in match[2].split("/") if part):
        return Target("s3", match[1], match[2])
    raise SendError(
        "Name the target as hf://datasets/ORGANIZATION/NAME or s3://BUCKET/PREFIX/ (letters, digits, "
        "“-”, “_” and “.”)."
    )


def allowed_prefixes(allowed: list[str], slug: str) -> list[str]:
    """The operator's list for one project: `{project}` is its short name."""
    return [prefix.replace("{project}", slug) for prefix in allowed]


def check_allowed(text: str, allowed: list[str], slug: str) -> Target:
    """The target, if the operator's list allows it to this project; SendError if not.

    An entry that ends with “/” allows everything below it, any other entry exactly itself.
    """
    target = parse_target(text)
    prefixes = allowed_prefixes(allowed, slug)
    whole = text if target.kind == "hub" or text.endswith("/") else f"{text}/"
    if any(whole.startswith(p) if p.endswith("/") else text == p for p in prefixes):
        return target
    if not prefixes:
        raise SendError("The operator has allowed no target yet (PUSH_ALLOWED).")
    raise SendError(f"This target is not allowed; allowed are {', '.join(prefixes)}.")
