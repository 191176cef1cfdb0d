"""The launch form, built from the fields of the stages' configuration classes."""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from django import forms

from annotation.models import Project
from rlhf.models import Checkpoint, Round, Worker
from rlhf.round_config import (
    FILLED_IN,
    LENGTHS,
    NARROWED,
    SECTIONS,
    SMALL_LANGUAGE_MODEL,
    TOY_PARAMETERS,
    FrozenConfig,
    SettingsError,
    freeze,
    placeholders,
)
from rlhf.training.settings import Setting, nested

MATTER_ALWAYS = (
    "round.ranking_prompts",
    "round.overlap",
    "generate.k",
    "round.max_new_tokens",
    "round.heldout_prompts",
    "ppo.steps",
    "ppo.rollout.prompts_per_step",
    "ppo.kl.weight",
    "ppo.optimizer.learning_rate",
)
"""The settings that decide about quality, time and drift whatever the model; the rest is searched for."""


NAMES = {
    "round.ranking_prompts": "Prompts to rank",
    "round.overlap": "Judgments per comparison",
    "generate.k": "Answers per prompt",
    "round.max_new_tokens": "Longest answer (tokens)",
    "ppo.steps": "PPO steps",
    "ppo.kl.weight": "KL penalty",
    "round.heldout_prompts": "Held-out prompts",
    "ppo.rollout.prompts_per_step": "Prompts per PPO step",
    "ppo.optimizer.learning_rate": "Learning rate of PPO",
    "ppo.lora.rank": "LoRA rank (0: all weights)",
    "ppo.optimizer.tokens_per_pass": "Tokens per pass (memory)",
    "reward_model.epochs": "Epochs of the reward models",
}


@dataclass(frozen=True)
class MainSettings:
    """The ten settings that the form shows first, and for which model and device they were chosen."""

    keys: tuple[str, ...]
    reason: str


def main_settings(project: Project) -> MainSettings:
    """The settings that matter for the project's policy on the workers' device.

    A small model is held back by its reward models; a large one by memory, which LoRA saves on a CPU
    and the size of a pass on a GPU that trains all weights.
    """
    policy = Checkpoint.objects.current_policy(project)
    n = policy.n_parameters if policy is not None else 0
    on_gpu = Worker.objects.compute_machine().get("kind") == "cuda"
    size = f"a model of {n / 1e6:,.3g} million parameters" if n else "a model of unknown size"
    if 0 < n < TOY_PARAMETERS:
        key = "reward_model.epochs"
    elif on_gpu and 0 < n <= SMALL_LANGUAGE_MODEL:
        key = "ppo.optimizer.tokens_per_pass"
    else:
        key = "ppo.lora.rank"
    where = "a GPU" if on_gpu else "a CPU"
    return MainSettings((*MATTER_ALWAYS, key), f"{size} on {where}")


@cache
def explained() -> dict[str, dict[str, str]]:
    """`{section: {key of a setting: its help text}}`."""
    return {
        section: {key: known.help for key, known in config.settings().items()}
        for section, config in SECTIONS.items()
    }


def by_key(section: str, values: Any) -> dict[str, Any]:
    """`{key: value}` of a section's settings, with dotted keys for those in groups."""
    return SECTIONS[section].split_known(values)[0] if isinstance(values, Mapping) else {}


@dataclass(frozen=True)
class SettingField:
    """One setting on the page: its form field, its value in the last round, and what it requires
    where it has no effect."""

    field: forms.BoundField
    name: str
    help: str
    before: str
    is_changed: bool
    requires: str

    @property
    def key(self) -> str:
        """`section.setting`, by which documentation and configurations name it."""
        return self.field.name

    @property
    def shown(self) -> str:
        """The value in the form, as text."""
        value = self.field.value()
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Section:
    """The settings of one stage (or of the round) that are folded, by group."""

    name: str
    groups: list[tuple[str, list[SettingField]]]
    """(heading, settings); the heading of settings outside of groups is ""."""

    @property
    def settings(self) -> list[SettingField]:
        """All settings of the section."""
        return [setting for _, settings in self.groups for setting in settings]

    @property
    def has_errors(self) -> bool:
        """Whether one of its fields was refused."""
        return any(setting.field.errors for setting in self.settings)


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
    """A round's configuration. `defaults` is what the round would get; `before` the last round's.

    Once it is valid, `frozen` is the configuration that can be launched.
    """

    frozen: FrozenConfig

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        project: Project,
        defaults: Mapping[str, Any],
        before: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(data)
        self.project, self.defaults, self.before = project, defaults, before
        self.main = main_settings(project)
        for section, name, value, limits, hint in _settings(defaults):
            self.fields[f"{section}.{name}"] = _field(name, value, limits, hint)

    @property
    def up_front(self) -> list[SettingField]:
        """The ten settings that matter for this model and device."""
        requirements = self._requirements()
        return [
            self._setting_field(key, requirements) for key in self.main.keys if key in self.fields
        ]

    @property
    def changed(self) -> list[SettingField]:
        """The settings that differ from the last round's, in the form's order."""
        requirements = self._requirements()
        settings = (self._setting_field(key, requirements) for key in self.fields)
        return [setting for setting in settings if setting.is_changed]

    @property
    def folded(self) -> list[Section]:
        """All others, by section and group."""
        sections: dict[str, dict[str, list[SettingField]]] = {}
        requirements = self._requirements()
        for key in self.fields:
            if key not in self.main.keys:
                section, _, name = key.partition(".")
                title = SECTIONS[section].settings()[name].group
                groups = sections.setdefault(section, {})
                groups.setdefault(title, []).append(self._setting_field(key, requirements))
        return [
            Section(section, list(sections[section].items()))
            for section in SECTIONS
            if section in sections
        ]

    def _requirements(self) -> dict[str, str]:
        """For each setting without effect: what it requires."""
        sent = getattr(self, "cleaned_data", {}) if self.is_bound else {}
        texts = {}
        for section, config_class in SECTIONS.items():
            values = by_key(section, self.defaults.get(section)) | placeholders(config_class)
            for key, value in sent.items():
                if key.startswith(f"{section}."):
                    values[key.partition(".")[2]] = value
            for name, requirement in config_class.unmet(values).items():
                texts[f"{section}.{name}"] = requirement.text
        return texts

    def _setting_field(self, key: str, requirements: Mapping[str, str]) -> SettingField:
        section, _, name = key.partition(".")
        field = self[key]
        before = by_key(section, (self.before or {}).get(section)).get(name)
        if self.is_bound and key in getattr(self, "cleaned_data", {}):
            value = self.cleaned_data[key]
        else:
            value = field.value() if self.is_bound else self.fields[key].initial
        changed = before is not None and _plain(before) != _plain(value)
        shown = ", ".join(map(str, before)) if isinstance(before, list) else str(before)
        return SettingField(
            field,
            NAMES.get(key, name),
            explained().get(section, {}).get(name, ""),
            shown if before is not None else "",
            changed,
            requirements.get(key, ""),
        )

    def clean(self) -> dict[str, Any]:
        super().clean()
        if not self.errors:
            try:
                self.frozen = freeze(self.config(), Round.FULL_PLAN, self.project)
            except SettingsError as error:
                for key, reason in error.reasons.items():
                    self.add_error(key if key in self.fields else None, reason)
        return self.cleaned_data

    def config(self) -> dict[str, Any]:
        """`{section: {setting: value}}`: the defaults with what the form changed."""
        config = {section: by_key(section, values) for section, values in self.defaults.items()}
        for key, value in self.cleaned_data.items():
            section, _, name = key.partition(".")
            if name in config[section] or _plain(value) != _plain(self.fields[key].initial):
                config[section][name] = value
        return {section: nested(values) for section, values in config.items()}


def _settings(
    defaults: Mapping[str, Any],
) -> Iterator[tuple[str, str, Any, Mapping[str, Any], Any]]:
    """(section, key, value, limits, type) of all that a person may set."""
    for section, values in defaults.items():
        given = by_key(section, values)
        for key, known in SECTIONS[section].settings().items():
            if known.is_required or key in FILLED_IN or known.hint == dict[str, float]:
                continue
            if key == LENGTHS.get(section):  # the round's
                continue
            yield section, key, given.get(key, known.default), limits_of(section, known), known.hint


def field_of(section: str, name: str, value: Any) -> forms.Field:
    """The form field of one setting with a value."""
    known = SECTIONS[section].settings()[name]
    value = known.default if value is None else value
    return _field(name, value, limits_of(section, known), known.hint)


def limits_of(section: str, known: Setting) -> Mapping[str, Any]:
    """`minimum`, `maximum` and `choices` of a setting: its class's, narrowed where a round takes less."""
    low, high = NARROWED.get((section, known.key), (known.minimum, known.maximum))
    return {"minimum": low, "maximum": high, "choices": known.choices}


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
