"""What the cache holds, as JSON: reading it runs nothing, no matter who wrote it.

Pickle would hand the web server to anybody who can write to Redis or the cache's folder. In addition to JSON's
own values there are tuples, dictionaries with other keys, arrays, and the dataclasses listed here.
"""

import base64
import json
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import numpy as np

TAG = "@"
PLAIN = (str, int, float, bool, type(None))


@cache
def known_classes() -> dict[str, type]:
    """The dataclasses that may be read back, by name."""
    from annotation.quality.assessment import Assessment
    from annotation.statistics import dawid_skene, estimates, habits, labels, marks, profiles
    from annotation.statistics.reliability import Known, Quality

    classes = (
        *(Assessment, Known, Quality, profiles.Profile, marks.Marked, habits.Speed),
        *(estimates.Estimate, estimates.Habit, labels.Pairs, dawid_skene.DawidSkene),
    )
    return {known.__name__: known for known in classes}


class JsonSerializer:
    """For Django's Redis cache (`OPTIONS: serializer`) and config/file_cache.py."""

    def dumps(self, value: Any) -> Any:
        # Redis counts with integers as they are.
        return value if type(value) is int else json.dumps(encoded(value)).encode()

    def loads(self, data: Any) -> Any:
        """The value; None, which is a miss, for what is no JSON or of an unknown kind."""
        try:
            return decoded(json.loads(data))
        except (ValueError, KeyError, TypeError):
            return None


def encoded(value: Any) -> Any:
    """`value` in JSON's types. TypeError for a class that is not listed above."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list):
        if value and all(isinstance(row, tuple) and _is_plain(row) for row in value):
            return {TAG: "tuples", "rows": value}
        return [encoded(item) for item in value]
    if isinstance(value, tuple):
        return {TAG: "tuple", "items": [encoded(item) for item in value]}
    if isinstance(value, dict):
        if all(isinstance(key, str) and key != TAG for key in value):
            return {key: encoded(item) for key, item in value.items()}
        return {TAG: "dict", "items": [[encoded(k), encoded(v)] for k, v in value.items()]}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {TAG: "array", "type": value.dtype.str, "shape": value.shape, "data": data}
    name = type(value).__name__
    if is_dataclass(value) and known_classes().get(name) is type(value):
        parts = {field.name: encoded(getattr(value, field.name)) for field in fields(value)}
        return {TAG: name, "fields": parts}
    raise TypeError(f"The cache keeps no {name}; add it to config/cache_json.py.")


def decoded(value: Any) -> Any:
    """The inverse of `encoded`. KeyError for a kind that is not known here."""
    if isinstance(value, list):
        return [decoded(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value.get(TAG):
        case None:
            return {key: decoded(item) for key, item in value.items()}
        case "tuples":
            return [tuple(row) for row in value["rows"]]
        case "tuple":
            return tuple(decoded(item) for item in value["items"])
        case "dict":
            return {decoded(key): decoded(item) for key, item in value["items"]}
        case "array":
            kind = np.dtype(value["type"])
            if kind.kind not in "biuf":
                raise KeyError(kind)
            data = np.frombuffer(base64.b64decode(value["data"]), dtype=kind)
            return data.reshape(value["shape"]).copy()
        case name:
            known = known_classes()[name]
            made: Any = object.__new__(known)
            for field in fields(known):
                object.__setattr__(made, field.name, decoded(value["fields"][field.name]))
            return made


def _is_plain(row: tuple[Any, ...]) -> bool:
    return all(type(item) in PLAIN for item in row)
