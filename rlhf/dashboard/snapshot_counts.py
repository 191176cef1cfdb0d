"""The counts of a frozen dataset, as the round's page lists them."""

from typing import Any

from rlhf.dashboard.settings_table import shown_value

NAMES = {
    "judgments_simulated": "simulated judgments",
    "judgments_imported": "imported judgments",
    "rulings": "decisions of reviewers",
    "left_out": "not included",
}
"""Names of counts that are not simply their key."""
LEFT_OUT = {
    "heldout": "on held-out prompts",
    "not_signed_off": "from sources not signed off",
    "filtered": "excluded by filters",
    "excluded": "excluded by a reviewer",
    "overruled": "superseded by review",
}


def count_rows(counts: dict[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of every count that is not zero."""
    rows = ((NAMES.get(key, key.replace("_", " ")), _value(key, n)) for key, n in counts.items())
    return [(name, value) for name, value in rows if value]


def _value(key: str, count: Any) -> str:
    if not count:
        return ""
    if key == "guidelines":
        return ", ".join(f"version {v}: {n:,} judgments" for v, n in sorted(count.items()))
    if key == "left_out":
        reasons = [(count.get(reason), text) for reason, text in LEFT_OUT.items()]
        return ", ".join(f"{n:,} {text}" for n, text in reasons if n)
    return shown_value(count)
