"""The launch form, built from the fields of the stages' configuration classes."""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django import forms

from rlhf.stages import FILLED_IN, placeholders
from rlhf.training.configs import CONFIGS
from rlhf.training.settings import IdleError, nested

STAGES = {
    stage: CONFIGS[stage] for stage in ("base", "generate", "reward_model", "ppo", "evaluate")
}
"""The stages of a round with settings, in its order."""
# The sizes of a round; no stage has them, so their sentences and limits are here.
ROUND_HELP = {
    "ranking_prompts": "Prompts that people rank the answers to, from the train split.",
    "harmful_share": "Share of them that ask for something harmful.",
    "overlap": "How many people judge each comparison.",
    "agreement_share": "Share of comparisons that one more person judges, to measure agreement.",
    "reference_prompts": "Prompts whose answers say what a score of 0 means.",
    "ppo_prompts": "Prompts that PPO practises on, from the train split.",
    "ppo_harmful_share": "Share of them that ask for something harmful.",
    "watch_prompts": "Prompts that only the test-RM looks at.",
    "heldout_prompts": "Held-out prompts that the dashboard's figures rest on.",
    "kl_reference": "What the KL penalty holds the policy to: base or previous.",
}
ROUND_LIMITS: dict[str, dict[str, Any]] = {
    "ranking_prompts": {"minimum": 1},
    "harmful_share": {"minimum": 0.0, "maximum": 1.0},
    "overlap": {"minimum": 1, "maximum": 50},
    "agreement_share": {"minimum": 0.0, "maximum": 1.0},
    "reference_prompts": {"minimum": 1},
    "ppo_prompts": {"minimum": 1},
    "ppo_harmful_share": {"minimum": 0.0, "maximum": 1.0},
    "watch_prompts": {"minimum": 1},
    "heldout_prompts": {"minimum": 1},
    "kl_reference": {"choices": ("base", "previous")},
}
# What most people change; the rest is folded.
UP_FRONT = (
    "round.ranking_prompts",
    "round.overlap",
    "generate.k",
    "ppo.steps",
    "ppo.kl.weight",
    "round.heldout_prompts",
)
NAMES = {
    "round.ranking_prompts": "Prompts to rank",
    "round.overlap": "Judgments per comparison",
    "generate.k": "Answers per prompt",
    "ppo.steps": "PPO steps",
    "ppo.kl.weight": "KL penalty",
    "round.heldout_prompts": "Held-out prompts",
}


@cache
def explained() -> dict[str, dict[str, str]]:
    """`{section: {key of a setting: its help text}}`."""
    help_texts = {
        stage: {key: known.help for key, known in config.settings().items()}
        for stage, config in STAGES.items()
    }
    return {"round": dict(ROUND_HELP), **help_texts}


def by_key(section: str, values: Any) -> dict[str, Any]:
    """`{key: value}` of a section's settings, with dotted keys for those in groups."""
    if not isinstance(values, Mapping):
        return {}
    return STAGES[section].split_known(values)[0] if section in STAGES else dict(values)


@dataclass(frozen=True)
class Knob:
    """One setting on the page: its form field, its value in the last round, and what it requires
    where it has no effect."""

    field: forms.BoundField
    name: str
    help: str
    before: str
    is_changed: bool
    requires: str


@dataclass(frozen=True)
class Section:
    """The settings of one stage (or of the round) that are folded, by group."""

    name: str
    groups: list[tuple[str, list[Knob]]]
    """(heading, settings); the heading of settings outside of groups is ""."""

    @property
    def knobs(self) -> list[Knob]:
        """All settings of the section."""
        return [knob for _, knobs in self.groups for knob in knobs]

    @property
    def has_errors(self) -> bool:
        """Whether one of its fields was refused."""
        return any(knob.field.errors for knob in self.knobs)


class ListField(forms.CharField):
    """Several numbers or words, separated by commas."""

    def __init__(self, *, item: type, **options: Any) -> None:
        super().__init__(**options)
        self.item = item

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(str(v) for v in value) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return list(value)
        try:
            return [self.item(part.strip()) for part in str(value or "").split(",") if part.strip()]
        except ValueError:
            raise forms.ValidationError("Numbers separated by commas, such as 1.0, 0.3.") from None


class LaunchForm(forms.Form):
    """A round's configuration. `defaults` is what the round would get; `before` the last round's."""

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        defaults: Mapping[str, Any],
        before: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data)
        self.defaults, self.before = defaults, before
        for section, name, value, limits, hint in _settings(defaults):
            self.fields[f"{section}.{name}"] = _field(name, value, limits, hint)

    @property
    def up_front(self) -> list[Knob]:
        """The few settings that most people change."""
        requirements = self._requirements()
        return [self._knob(key, requirements) for key in UP_FRONT if key in self.fields]

    @property
    def folded(self) -> list[Section]:
        """All others, by section and group."""
        sections: dict[str, dict[str, list[Knob]]] = {}
        requirements = self._requirements()
        for key in self.fields:
            if key not in UP_FRONT:
                section, _, name = key.partition(".")
                title = STAGES[section].settings()[name].group if section in STAGES else ""
                groups = sections.setdefault(section, {})
                groups.setdefault(title, []).append(self._knob(key, requirements))
        return [
            Section(section, list(sections[section].items()))
            for section in ("round", *STAGES)
            if section in sections
        ]

    def _requirements(self) -> dict[str, str]:
        """For each setting without effect: what it requires."""
        sent = getattr(self, "cleaned_data", {}) if self.is_bound else {}
        texts = {}
        for section, config_class in STAGES.items():
            values = by_key(section, self.defaults.get(section)) | placeholders(config_class)
            for key, value in sent.items():
                if key.startswith(f"{section}."):
                    values[key.partition(".")[2]] = value
            for name, requirement in config_class.unmet(values).items():
                texts[f"{section}.{name}"] = requirement.text
        return texts

    def _knob(self, key: str, requirements: Mapping[str, str]) -> Knob:
        section, _, name = key.partition(".")
        field = self[key]
        before = by_key(section, (self.before or {}).get(section)).get(name)
        if self.is_bound and key in getattr(self, "cleaned_data", {}):
            value = self.cleaned_data[key]
        else:
            value = field.value() if self.is_bound else self.fields[key].initial
        changed = before is not None and _plain(before) != _plain(value)
        shown = ", ".join(map(str, before)) if isinstance(before, list) else str(before)
        return Knob(
            field,
            NAMES.get(key, name),
            explained().get(section, {}).get(name, ""),
            shown if before is not None else "",
            changed,
            requirements.get(key, ""),
        )

    def clean(self) -> dict[str, Any]:
        super().clean()
        # Rules that concern several settings: the classes know them.
        if not self.errors:
            config = self.config()
            for stage, config_class in STAGES.items():
                values = config.get(stage)
                if values is None or stage not in self.defaults:
                    continue
                try:
                    config_class.from_dict({**values, **placeholders(config_class)})
                except IdleError as error:
                    for name, reason in error.reasons.items():
                        key = f"{stage}.{name}"
                        self.add_error(key if key in self.fields else None, f"{reason}.")
                except ValueError as error:
                    self.add_error(None, f"{stage}: {error}.")
        return self.cleaned_data

    def config(self) -> dict[str, Any]:
        """`{section: {setting: value}}`: the defaults with what the form changed."""
        config = {
            section: by_key(section, values) if isinstance(values, Mapping) else values
            for section, values in self.defaults.items()
        }
        for key, value in self.cleaned_data.items():
            section, _, name = key.partition(".")
            if name in config[section] or _plain(value) != _plain(self.fields[key].initial):
                config[section][name] = value
        return {
            section: nested(values) if section in STAGES else values
            for section, values in config.items()
        }


def _settings(
    defaults: Mapping[str, Any],
) -> Iterator[tuple[str, str, Any, Mapping[str, Any], Any]]:
    """(section, key, value, limits, type) of all that a person may set."""
    for section, values in defaults.items():
        if section == "round":
            for name, value in values.items():
                if type(value) in (int, float, bool, str):
                    yield section, name, value, ROUND_LIMITS.get(name, {}), type(value)
        elif section in STAGES:
            given = by_key(section, values)
            for key, known in STAGES[section].settings().items():
                if known.is_required or key in FILLED_IN or known.hint == dict[str, float]:
                    continue
                limits = {
                    "minimum": known.minimum,
                    "maximum": known.maximum,
                    "choices": known.choices,
                }
                yield section, key, given.get(key, known.default), limits, known.hint


def _field(name: str, value: Any, limits: Mapping[str, Any], hint: Any) -> forms.Field:
    attributes = {"autocomplete": "off"}
    choices = limits.get("choices")
    if choices:
        return forms.ChoiceField(
            choices=[(choice, choice) for choice in choices], initial=value, label=name
        )
    if hint is bool:
        return forms.BooleanField(required=False, initial=value, label=name)
    low, high = limits.get("minimum"), limits.get("maximum")
    if hint is int:
        return forms.IntegerField(
            initial=value,
            label=name,
            min_value=None if low is None else int(low),
            max_value=None if high is None else int(high),
            widget=forms.NumberInput(attrs=attributes),
        )
    if hint is float:
        return forms.FloatField(
            initial=value,
            label=name,
            min_value=low,
            max_value=high,
            widget=forms.NumberInput(attrs={**attributes, "step": "any"}),
        )
    if typing.get_origin(hint) in (tuple, list):
        item = typing.get_args(hint)[0]
        return ListField(item=item, required=bool(value), initial=list(value), label=name)
    return forms.CharField(required=False, initial=value, label=name, max_length=500)


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, bool):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        return value
