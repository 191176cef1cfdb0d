"""Write docs/settings.md from the configuration classes: `python docs/make_settings.py`.

`tests/test_docs.py` fails when the page and the classes differ.
"""

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rlhf.training import configs  # noqa: E402
from rlhf.training.rewards import REWARDS  # noqa: E402
from rlhf.training.settings import MOST  # noqa: E402

STAGES = (
    "Base",
    "Generate",
    "RewardModel",
    "PPO",
    "Evaluate",
    "Selection",
    "SFT",
    "DPO",
    "BestOfN",
    "Grow",
)


def page() -> str:
    """The whole page as Markdown."""
    lines = [
        "# Settings of the stages",
        "",
        "Made by `python docs/make_settings.py` from `rlhf/training/configs.py`; change it there.",
        "A stage's `config.json` holds these fields; an unknown one is an error, and so is one that is",
        "changed and does nothing beside the others. Whole numbers go up to 10¹². What a demo round",
        "uses is in `rlhf/training/presets/tiny.toml`.",
    ]
    for name in STAGES:
        config = getattr(configs, f"{name}Config")
        lines += ["", f"## {name}Config", "", config.__doc__.strip().splitlines()[0], ""]
        lines += ["| setting | default | range | what it does |", "|---|---|---|---|"]
        for field in dataclasses.fields(config):
            told = f"{field.metadata['help']}{_under(field)}"
            cells = (f"`{field.name}`", _default(field), _range(field), told)
            lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    lines += ["", "## Rules for `PPOConfig.rules`", "", "| rule | what it rewards |", "|---|---|"]
    for name, rule in REWARDS.items():
        lines.append(f"| `{name}` | {' '.join((rule.__doc__ or '').split())} |")
    return "\n".join(lines) + "\n"


def _default(field: "dataclasses.Field[object]") -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    if field.default_factory is not dataclasses.MISSING:
        return f"`{field.default_factory()!r}`"
    return "required"


def _range(field: "dataclasses.Field[object]") -> str:
    limits = field.metadata
    if limits.get("choices"):
        return ", ".join(f"`{choice}`" for choice in limits["choices"])
    low, high = limits.get("minimum"), limits.get("maximum")
    high = None if high == MOST else high
    if low is None and high is None:
        return ""
    if high is None:
        return f"≥ {_number(low)}"
    return f"≤ {_number(high)}" if low is None else f"{_number(low)} … {_number(high)}"


def _number(limit: float) -> str:
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _under(field: "dataclasses.Field[object]") -> str:
    switches = " and ".join(switch.says for switch in field.metadata.get("under", ()))
    return f" *Only under {switches}.*" if switches else ""


if __name__ == "__main__":
    (ROOT / "docs" / "settings.md").write_text(page(), encoding="utf-8")
