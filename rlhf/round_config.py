"""A round's configuration: a section for the round itself and one for each stage, frozen at launch.

`freeze` checks it once; what comes out (`FrozenConfig`, and the JSON on the round's row) is trusted.
To add a stage's settings, add its name to `SECTIONS`: form, checks and docs follow from its class.
"""

import contextlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from django.conf import settings

from annotation.models import MAX_RESPONSES, Project, Prompt
from rlhf.errors import RoundError
from rlhf.models import Checkpoint, Round, Worker
from rlhf.training.configs import CONFIGS
from rlhf.training.configs.ppo_groups import OptimizerSettings, RolloutSettings
from rlhf.training.settings import IdleError, StageConfig, nested, setting

Config = dict[str, dict[str, Any]]

PRESETS = Path(__file__).parent / "training" / "presets"

FILLED_IN = (
    "policy",
    "reference",
    "reward_model",
    "test_reward_model",
    "trunk",
    "seed",
    "threads",
    "axes",
    "corpus",
    "corpus_clean_share",
    "batches",
    "opponents",
)
"""Settings that name models, the machine or what another page chose: never a person's on this form."""


MAX_OVERLAP = 20

TOY_PARAMETERS = 20_000_000
"""Policies below this get the demo's settings; 0 parameters are a model that was never inspected."""


@dataclass(frozen=True, kw_only=True)
class RoundConfig(StageConfig):
    """How many prompts a round uses, for what, and how many people judge."""

    ranking_prompts: int = setting(
        360, "Prompts that people rank the responses to, from the train split.", minimum=1
    )
    harmful_share: float = setting(
        0.0,
        "Share of the ranked prompts that ask for something harmful; 0 takes them as they come.",
        minimum=0.0,
        maximum=1.0,
    )
    overlap: int = setting(
        1, "How many people judge each comparison.", minimum=1, maximum=MAX_OVERLAP
    )
    agreement_share: float = setting(
        0.0,
        "Share of comparisons that one more person judges, to measure agreement.",
        minimum=0.0,
        maximum=1.0,
    )
    reference_prompts: int = setting(
        200, "Prompts whose responses set the zero of the reward model's scores.", minimum=1
    )
    ppo_prompts: int = setting(2600, "PPO training prompts, from the train split.", minimum=1)
    ppo_harmful_share: float = setting(
        0.0,
        "Share of the PPO training prompts that ask for something harmful; 0 takes them as they come.",
        minimum=0.0,
        maximum=1.0,
    )
    watch_prompts: int = setting(
        48,
        "Validation prompts that the test reward model watches PPO with; 0 turns the tripwire off.",
        minimum=0,
    )
    heldout_prompts: int = setting(
        150, "Held-out prompts that the dashboard's figures are measured on.", minimum=1
    )
    max_new_tokens: int = setting(
        64,
        "The longest response in tokens, in every stage: in what people judge, in PPO and in the "
        "evaluation. Where it changes, the base and the previous policy are sampled again before "
        "anything is compared with them.",
        minimum=1,
    )
    kl_reference: str = setting(
        "base",
        "The policy that the KL penalty is measured against: base or previous.",
        choices=("base", "previous"),
    )
    reward_trunk: str = setting(
        "policy",
        "The model that the reward models are trained from: policy (the base policy that the round "
        "goes back to), or a model of your own, as a folder or a name on a model hub. An encoder "
        "needs reward_model.prior off.",
    )
    corpus: int = setting(30_000, "Rows that the base policy is trained on.", minimum=1)
    corpus_clean_share: float = setting(
        0.6, "Share of these rows that are without fault.", minimum=0.0, maximum=1.0
    )
    batches: tuple[int, ...] = setting(
        (), "Batches that the reward models learn from; empty means every closed batch."
    )

    @classmethod
    def of(cls, round: Round) -> Self:
        """The settings that a round was launched with; what an older version lacked is at its default."""
        stored, _ = cls.split_known(round.config.get("round", {}))
        values = _with_overlap(stored, round.project, round.plan)
        return cls.from_dict(values, stored=True)


SECTIONS: dict[str, type[StageConfig]] = {
    "round": RoundConfig,
    **{
        stage: CONFIGS[stage]
        for stage in ("base", "sft", "generate", "reward_model", "ppo", "evaluate", "selection")
    },
}
"""The class behind each section of a round's configuration, in the order of its stages."""

NARROWED: dict[tuple[str, str], tuple[int, int]] = {("generate", "k"): (2, MAX_RESPONSES)}
"""(minimum, maximum) of a setting that is more restricted in a round than in the stage alone."""

LENGTHS = {
    "generate": "max_new_tokens",
    "ppo": "rollout.max_new_tokens",
    "evaluate": "max_new_tokens",
}
"""The setting of each stage that is the round's `max_new_tokens`: no page asks for it by itself."""


class SettingsError(RoundError):
    """Settings that can't be launched: `{"section.setting": sentence}`, or the section alone."""

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


@dataclass(frozen=True)
class FrozenConfig:
    """A complete configuration that was checked by `freeze`, as objects of the classes in SECTIONS."""

    sections: Mapping[str, Any]

    def to_dict(self) -> Config:
        """`{section: {setting: value}}` as the round's row has it, without what is filled in later."""
        return {name: without_filled_in(config) for name, config in self.sections.items()}


def freeze(
    config: Mapping[str, Mapping[str, Any]] | FrozenConfig, plan: Sequence[str], project: Project
) -> FrozenConfig:
    """Check a configuration and fill in every default; SettingsError for an unknown or impossible one."""
    if isinstance(config, FrozenConfig):
        return config
    names = ["round", *(stage for stage in plan if stage in SECTIONS)]
    for section in config:
        if section not in names:
            reason = f"{section!r} is not a part of this round's configuration."
            raise SettingsError(reason, {section: reason})
    values = {name: dict(config.get(name, {})) for name in names}
    values["round"] = _with_overlap(values["round"], project, plan)
    with contextlib.suppress(ValueError):  # a setting given twice: its section is refused below
        values = _with_one_length(values)
    frozen: dict[str, StageConfig] = {}
    refused: list[SettingsError] = []
    for name in names:
        try:
            frozen[name] = parsed(name, values[name])
        except SettingsError as error:
            refused.append(error)
    for (section, name), (low, high) in NARROWED.items():
        if section in frozen and not low <= getattr(frozen[section], name) <= high:
            reason = f"{section}: {name} must be between {low} and {high}."
            refused.append(SettingsError(reason, {f"{section}.{name}": reason}))
    if refused:
        reasons = {key: reason for error in refused for key, reason in error.reasons.items()}
        raise SettingsError(str(refused[0]), reasons)
    return FrozenConfig(frozen)


def _with_one_length(values: Mapping[str, Mapping[str, Any]]) -> Config:
    """The sections with one `max_new_tokens` in the round and in each stage that samples.

    SettingsError where a stage names another length than the round, or two stages name different
    ones: their responses could not be compared.
    """
    stated = _stated_lengths(values)
    lengths = (
        {"round": values["round"]["max_new_tokens"]} if "max_new_tokens" in values["round"] else {}
    )
    lengths |= stated
    config = {section: dict(settings) for section, settings in values.items()}
    if not lengths:
        return config
    length = next(iter(lengths.values()))
    if any(other != length for other in lengths.values()):
        section = next(iter(stated))
        listed = ", ".join(f"{name} {value}" for name, value in lengths.items())
        reason = (
            f"The longest response differs between the round's stages ({listed}); set "
            "round.max_new_tokens, which holds for all of them."
        )
        raise SettingsError(reason, {f"{section}.{LENGTHS[section]}": reason})
    config["round"]["max_new_tokens"] = length
    for section, key in LENGTHS.items():
        if section in config:
            # What is unknown in it is refused where the section is parsed.
            known, unknown = SECTIONS[section].split_known(config[section])
            config[section] = nested(known | {key: length}) | unknown
    return config


def _stated_lengths(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """{section: longest response} of the stages that name one."""
    known = {
        section: SECTIONS[section].split_known(values[section])[0]
        for section in LENGTHS
        if section in values
    }
    return {
        section: settings[LENGTHS[section]]
        for section, settings in known.items()
        if LENGTHS[section] in settings
    }


def longest_response(config: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The longest response in tokens under a round's stored configuration.

    Rounds of earlier versions had one for each stage; there it is the evaluation's.
    """
    stated = _stated_lengths(config)
    length = (config.get("round") or {}).get("max_new_tokens")
    length = length or stated.get("evaluate") or stated.get("generate") or stated.get("ppo")
    return int(length) if isinstance(length, int | float) else None


def _offer_one_length(sections: Config, length: int | None) -> Config:
    """The sections of a form: the length in the round's section only."""
    offered = {
        section: nested(
            {
                key: value
                for key, value in SECTIONS[section].split_known(values)[0].items()
                if key != LENGTHS.get(section)
            }
        )
        for section, values in sections.items()
    }
    if length is not None:
        offered["round"]["max_new_tokens"] = length
    return offered


def parsed(section: str, values: Mapping[str, Any]) -> StageConfig:
    """A section as an object of its class, with placeholders for what is filled in later."""
    config_class = SECTIONS[section]
    chosen = {name: value for name, value in values.items() if name not in FILLED_IN}
    try:
        return config_class.from_dict(chosen | placeholders(config_class))
    except IdleError as error:
        reasons = {f"{section}.{name}": f"{reason}." for name, reason in error.reasons.items()}
        raise SettingsError(f"{section}: {error}.", reasons) from None
    except ValueError as error:
        reason = f"{section}: {error}."
        raise SettingsError(reason, {section: reason}) from None


def without_filled_in(config: StageConfig) -> dict[str, Any]:
    """The settings of a section that a person may choose."""
    return {name: value for name, value in config.to_dict().items() if name not in FILLED_IN}


def placeholders(config_class: type[StageConfig]) -> dict[str, str]:
    """Something in place of every model that is filled in later, so that the rest can be checked."""
    models = ("policy", "reference", "reward_model", "test_reward_model", "trunk")
    return {name: "…" for name in models if name in config_class.__dataclass_fields__}


def _with_overlap(
    values: Mapping[str, Any], project: Project, plan: Sequence[str]
) -> dict[str, Any]:
    """Fill in the project's overlap if it is missing; a round without annotation has no overlap."""
    if "generate" not in plan:
        return {name: value for name, value in values.items() if name != "overlap"}
    return {"overlap": min(project.overlap, MAX_OVERLAP), **values}


# --- Presets and defaults ---------------------------------------------------------------------


def preset(name: str) -> Config:
    """The sections of `rlhf/training/presets/<name>.toml`; RoundError if there is no such file."""
    path = PRESETS / f"{name}.toml"
    if not re.fullmatch(r"\w[\w-]*", name) or not path.exists():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise RoundError(f"There is no preset {name!r}; there are {known}.")
    return tomllib.loads(path.read_text(encoding="utf-8"))


def default_config(project: Project, preset_name: str = "") -> Config:
    """The configuration that the launch form proposes: every setting of every stage.

    The last round's values, or the preset's and the defaults. A setting without effect, which
    earlier versions accepted, is reset to its default, and the page marks the change.
    """
    last = Round.objects.filter(project=project, plan=Round.FULL_PLAN).order_by("-number").first()
    if last and not preset_name:
        offered = {
            section: _offered(section, values)
            for section, values in last.config.items()
            if section in ("round", *Round.FULL_PLAN) and section in SECTIONS
        }
        return _offer_one_length(offered, longest_response(last.config))
    chosen = preset(preset_name or proposed_preset(project).preset)
    if not project.is_demo:
        chosen.setdefault("round", {})["overlap"] = min(project.overlap, MAX_OVERLAP)
    chosen.setdefault("generate", {})["k"] = project.responses_per_comparison
    _fit_rollouts(chosen, project)
    base = Round.objects.filter(project=project, number=0).first()
    length = longest_response(base.config) if base and not preset_name else None
    sections = {
        section: without_filled_in(parsed(section, chosen.get(section, {})))
        for section in ("round", *Round.FULL_PLAN)
        if section in SECTIONS
    }
    return _offer_one_length(sections, length or longest_response(chosen))


def _fit_rollouts(config: Config, project: Project) -> None:
    """Lower PPO's prompts per step to those that exist: with fewer, the stage refuses to begin."""
    signed_off = Prompt.objects.filter(
        project=project, split=Prompt.Split.TRAIN, source__signed_off_at__isnull=False
    )
    n = min(
        signed_off.count(), config.get("round", {}).get("ppo_prompts", RoundConfig().ppo_prompts)
    )
    ppo = config.setdefault("ppo", {})
    rollout, optimizer = ppo.setdefault("rollout", {}), ppo.setdefault("optimizer", {})
    per_step = rollout.get("prompts_per_step", RolloutSettings().prompts_per_step)
    if 0 < n < per_step:
        rollout["prompts_per_step"] = n
        responses = n * rollout.get("samples_per_prompt", 1)
        minibatch = optimizer.get("minibatch_size", OptimizerSettings().minibatch_size)
        optimizer["minibatch_size"] = min(minibatch, responses)


def _offered(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What of a last round's section is offered again: an older version's may hold other settings."""
    config_class = SECTIONS[section]
    known, _ = config_class.split_known(values)
    kept = config_class.flattened(config_class.without_idle(known | placeholders(config_class)))
    return nested({key: kept[key] for key in known if key not in FILLED_IN})


def with_changes(config: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]) -> Config:
    """The configuration with some settings changed, whichever way their keys are written: in nested
    tables, with dots, or as in earlier versions. RoundError names an unknown one."""
    changed = {section: dict(values) for section, values in config.items()}
    for section, values in changes.items():
        if not isinstance(values, Mapping):
            raise RoundError(f"{section} must be an object of settings.")
        before, config_class = changed.get(section, {}), SECTIONS.get(section)
        try:
            changed[section] = (
                config_class.merged(before, values) if config_class else {**before, **values}
            )
        except ValueError as error:
            raise RoundError(f"{section}: {error}.") from None
    return changed


def base_config(
    project: Project,
    preset_name: str = "",
    *,
    is_named: bool = False,
    is_inspected: bool = False,
    length: int | None = None,
) -> Config:
    """The configuration of the round that builds and measures the base policy, or measures a named
    model: as long responses as the next round's, or `length`, the project's longest in tokens.

    A model that `is_inspected` is not built, but may be fine-tuned.
    """
    chosen = preset(preset_name or proposed_preset(project, is_named=is_named).preset)
    base, sizes = chosen.get("base", {}), chosen.get("round", {})
    corpus = {name: sizes[name] for name in ("corpus", "corpus_clean_share") if name in sizes}
    seed = {"seed": base["seed"]} if "seed" in base else {}
    length = length or longest_response(chosen)
    one_length = {"max_new_tokens": length} if length else {}
    first = "sft" if is_inspected else "base"
    building = without_filled_in(parsed(first, chosen.get(first, {})))
    return {
        "round": without_filled_in(parsed("round", sizes | one_length)) | corpus,
        first: building if is_inspected else building | seed,
        "evaluate": without_filled_in(parsed("evaluate", chosen.get("evaluate", {}) | one_length)),
    }


@dataclass(frozen=True)
class Proposal:
    """The preset that the launch form begins with, and why, in a sentence."""

    preset: str
    reason: str
    is_doubtful: bool = False
    """Whether no preset is meant for this model on this device."""


SMALL_LANGUAGE_MODEL = 1_000_000_000
"""Parameters up to which the preset `small-lm` is meant."""


def proposed_preset(project: Project, *, is_named: bool = False) -> Proposal:
    """The preset for the project's policy on the workers' device.

    `is_named`: the base is a model of one's own whose row is not written yet.
    """
    policy = Checkpoint.objects.current_policy(project)
    is_toy = policy is None or 0 < policy.n_parameters < TOY_PARAMETERS
    if not is_named and is_toy and (project.is_demo or policy is None):
        name = str(settings.DEMO_PRESET)
        return Proposal(name, f"{name}, for the base policy that the project builds itself.")
    if not is_named and project.is_demo:
        return Proposal("smollm2", "smollm2, for the demo on SmolLM2.")
    n = policy.n_parameters if policy is not None else 0
    on_gpu = Worker.objects.compute_machine().get("kind") == "cuda"
    where = "a GPU" if on_gpu else "a CPU"
    if not n and not is_named and policy is not None and not on_gpu:
        reason = "small-lm: the model's size is not known yet, and the workers compute on a CPU."
        return Proposal("small-lm", reason, is_doubtful=True)
    size = f"{n / 1e6:,.3g} million parameters on {where}"
    if 0 < n < TOY_PARAMETERS:
        return Proposal("tiny", f"tiny, for {size}.")
    if on_gpu and (not n or n > SMALL_LANGUAGE_MODEL):
        return Proposal("small", f"small, for {size if n else 'a model of unknown size on a GPU'}.")
    if n > SMALL_LANGUAGE_MODEL:
        reason = f"small-lm, although the model has {size}, for which there is no preset."
        return Proposal("small-lm", reason, is_doubtful=True)
    return Proposal("small-lm", f"small-lm, for {size}." if n else "small-lm.")
