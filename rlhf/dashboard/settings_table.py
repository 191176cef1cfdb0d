"""A round's frozen configuration as a table, marked where it differs from the round before."""

from dataclasses import dataclass
from typing import Any

from rlhf.models import Round
from rlhf.training.configs import CONFIGS


@dataclass(frozen=True)
class Setting:
    """One line of a frozen configuration."""

    name: str
    value: str
    before: str
    is_changed: bool
    help: str


def settings_table(
    config: dict[str, Any], before: dict[str, Any] | None, explained: dict[str, dict[str, str]]
) -> list[tuple[str, list[Setting]]]:
    """A round's configuration by section, each value with that of the round before."""
    sections = []
    order = ["round", *Round.State.values]
    known_first = sorted(
        config.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)
    )
    for section, values in known_first:
        if not isinstance(values, dict):
            values = {"value": values}
            section_before: Any = {"value": (before or {}).get(section)}
        else:
            values = by_key(section, values)
            section_before = by_key(section, (before or {}).get(section) or {})
        rows = []
        for name, value in values.items():
            was = section_before.get(name) if isinstance(section_before, dict) else None
            known = (
                before is not None and isinstance(section_before, dict) and name in section_before
            )
            rows.append(
                Setting(
                    str(name),
                    shown_value(value),
                    shown_value(was) if known else "",
                    known and was != value,
                    explained.get(section, {}).get(name, ""),
                )
            )
        sections.append((section, rows))
    return sections


def by_key(section: str, values: Any) -> Any:
    """`{key: value}` of a section, with dotted keys for settings in groups, so that rounds of earlier
    versions can be compared."""
    if section not in CONFIGS or not isinstance(values, dict):
        return values
    known, unknown = CONFIGS[section].split_known(values)
    return known | unknown


def shown_value(value: Any) -> str:
    """A setting's value for reading."""
    if value is True or value is False:
        return "yes" if value else "no"
    if value is None or value == "":
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(shown_value(item) for item in value) or "–"
    if isinstance(value, dict):
        # By name: PostgreSQL keeps the keys of a JSON object in an order of its own.
        return ", ".join(f"{key} {shown_value(value[key])}" for key in sorted(value)) or "–"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    return str(value)
