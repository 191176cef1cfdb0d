"""Campaigns of live dialogues: what is asked at each turn, and opening one."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from annotation.models import Batch, DialogueCampaign, Event, Interface, Project, Source, User
from annotation.protocols import PRESETS, SAFETY_AXES, Protocol

MAX_TASK = 10_000


class DialogueError(Exception):
    """What can't be done in a dialogue now, in one sentence for a person."""


class CampaignError(DialogueError):
    """Why a campaign can't be opened, in one sentence for an admin."""


def open_campaign(
    project: Project,
    name: str,
    *,
    kind: str,
    writing: Mapping[str, Any],
    licence: str,
    by: User,
    preset: str = "",
    task: str = "",
    max_turns: int = 6,
) -> DialogueCampaign:
    """A campaign that people can talk in from now on; `by` signs off what they will write.

    What is asked at each turn is a preset's, or without one the project's own where it asks about
    two answers, else HH's eight points. CampaignError for what a dialogue can't ask.
    """
    if kind == DialogueCampaign.Kind.REDTEAM and leading_axis(project, kind) not in SAFETY_AXES:
        raise CampaignError(
            "A red-team campaign asks which answer does more harm: it needs a project with an axis "
            f"called {' or '.join(sorted(SAFETY_AXES))}."
        )
    protocol = protocol_of(project, preset)
    if problem := cannot_ask(protocol):
        raise CampaignError(problem)
    with transaction.atomic():
        source = Source.objects.create(
            project=project,
            name=f"Live dialogue: {name}"[:120],
            licence=licence,
            note="Written by this project's annotators while talking to a policy.",
            created_by=by,
            signed_off_by=by,
            signed_off_at=timezone.now(),
        )
        batch = Batch.objects.create(
            project=project,
            name=name,
            state=Batch.State.OPEN,
            opened_at=timezone.now(),
            interface=Interface.DIALOGUE,
            protocol=protocol.as_json(),
        )
        campaign = DialogueCampaign.objects.create(
            batch=batch,
            kind=kind,
            source=source,
            task=task,
            max_turns=max_turns,
            writing=dict(writing),
        )
        Event.record(project, by, "opened campaign", name, batch=batch.pk, kind=kind)
    return campaign


def protocol_of(project: Project, preset: str = "") -> Protocol:
    """What a campaign asks at each turn under a preset, or "" for what the project asks itself."""
    if preset:
        chosen = PRESETS.get(preset)
        if chosen is None or chosen.interface != Interface.DIALOGUE:
            raise CampaignError(f"There is no preset “{preset[:40]}” for a live dialogue.")
        return chosen.protocol
    if project.protocol and project.interface in (Interface.DIALOGUE, Interface.PAIR):
        return project.effective_protocol
    return PRESETS["hh-rlhf"].protocol


def cannot_ask(protocol: Protocol) -> str:
    """The parts of a protocol that a dialogue can't ask, as a sentence for an admin; "" if none."""
    parts = {
        "flags on answers (“flags”)": protocol.flags,
        "a better answer (“rewrite”)": protocol.rewrite != "none",
    }
    if unsupported := [words for words, is_asked in parts.items() if is_asked]:
        return (
            f"A live dialogue can't ask for {' or '.join(unsupported)}, and this project's protocol does: "
            "choose a preset here, or change the protocol in the project's settings."
        )
    return ""


def leading_axis(project: Project, kind: str) -> str:
    """The axis that decides which answer goes on."""
    keys = project.axis_keys
    wants_safety = kind == DialogueCampaign.Kind.REDTEAM
    return next((key for key in keys if (key in SAFETY_AXES) == wants_safety), keys[0])


def optional_axes(batch: Batch) -> list[str]:
    """The axes that need no answer in a live dialogue: all but the one that decides what goes on.

    Where neither answer does harm, a forced preference on safety would be noise. As in Bai et al.
    2022, whose helpful and red-team dialogues asked one question each.
    """
    campaign = DialogueCampaign.objects.filter(batch=batch).first()
    if campaign is None:
        return []
    leading = leading_axis(batch.project, campaign.kind)
    return [axis for axis in batch.project.axis_keys if axis != leading]
