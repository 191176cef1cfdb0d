"""The demo: a project in the small world, and its accounts."""

import json
import os
import secrets
from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from annotation.models import (
    Event,
    Membership,
    Project,
    Prompt,
    Source,
    User,
    content_hash,
)
from annotation.projects.batches import add_comparisons, close_batch, create_batch, open_batch
from annotation.protocols import PRESETS
from rlhf import simulation
from rlhf.world import everyday
from rlhf.world.everyday_demonstrations import DEMONSTRATIONS
from rlhf.world.prompts import SPLITS, make_prompts

Role = Membership.Role

CAST = {
    "grace": (Role.ADMIN, "launches rounds and decides"),
    "ada": (Role.ANNOTATOR, "ranks responses"),
    "ben": (Role.ANNOTATOR, "ranks responses"),
    "rita": (Role.RESEARCHER, "reads the dashboard, takes data away"),
}
HARMFUL_SHARE = 0.4
SPLIT_SIZES = {"train": 4000, "eval": 120, "heldout": 300}

GUIDELINES = """\
You are comparing answers of a small language model to everyday questions.

**Helpfulness**: which answer does more of what the person may rightly ask for?

- Right steps and right names count most, then completeness, then tone.
- A fluent answer about the wrong thing is worse than a short one about the right thing.
- Help with harm is no help.

**Safety**: which answer does less harm to anyone?

- A refusal that says why and offers something better beats a flat refusal.
- A flat refusal beats any help with harm.
- Refusing a harmless question is no safety: rank harmless answers equal.

Flag what is unsafe, wrong, off-topic or rude. Give two answers that you can't tell apart one rank.
"""


EVERYDAY_GUIDELINES = """\
You are comparing answers of a small language model to everyday questions.

**Helpfulness**: which answer would you rather get?

- It takes up the question, is complete, and ends where it should.
- A few sentences are enough; saying something twice is worse than saying it once.
- Help with harm is no help.

**Safety**: which answer does less harm to anyone?

- A refusal that says what would be better beats a flat refusal, and both beat help with harm.
- Refusing a harmless question is no safety: rank harmless answers equal.

Flag what is unsafe, wrong, off-topic or rude. Give two answers that you can't tell apart one rank.
"""


def everyday_project(slug: str = "everyday", name: str = "Everyday questions") -> Project:
    """The demo on a real language model, with everyday questions; created on the first call."""
    with transaction.atomic():
        project, made = Project.objects.get_or_create(
            slug=slug,
            defaults={
                "name": name,
                "description": "Everyday questions to a real language model. Some annotators are "
                "simulated and labeled: they follow a rule for manners and refusals, not for facts.",
                "guidelines": EVERYDAY_GUIDELINES,
                "is_demo": True,
            },
        )
        if made:
            source = _demo_source(
                project,
                "Everyday questions (written for this program)",
                "Split by a hash of the text.",
            )
            _save_prompts(
                source,
                [
                    (
                        [{"role": "user", "content": question.text}],
                        question.category,
                        question.risk,
                        question.split,
                    )
                    for question in everyday.questions().values()
                ],
            )
            Event.record(project, None, "made the demo project", project)
    return project


WRITTEN = "Written answers"


def write_demonstrations(project: Project) -> None:
    """Let simulated annotators write the demo's answers that its real language model is fine-tuned on;
    done on the first call."""
    if project.batches.filter(name=WRITTEN).exists():
        return
    chosen = PRESETS["demonstrate"]
    by_text = {prompt.text: prompt for prompt in project.prompts.filter(split=Prompt.Split.TRAIN)}
    with transaction.atomic():
        batch = create_batch(project, WRITTEN, overlap=1)
        batch.is_by_hand = True
        batch.interface, batch.protocol = chosen.interface, chosen.protocol.as_json()
        batch.save()
        add_comparisons(batch, [(by_text[question], []) for question in DEMONSTRATIONS])
        batch = open_batch(batch, None)
        simulation.judge_batch(batch)
        close_batch(batch, None)


def demo_project(slug: str = "tiny-world", name: str = "Tiny world") -> Project:
    """The demo project with the world's prompts; created on the first call."""
    with transaction.atomic():
        project, made = Project.objects.get_or_create(
            slug=slug,
            defaults={
                "name": name,
                "description": "Questions and answers of a small made-up world. Some annotators "
                "are simulated and labeled.",
                "guidelines": GUIDELINES,
                "is_demo": True,
            },
        )
        if made:
            _add_prompts(project)
            Event.record(project, None, "made the demo project", project)
    return project


def _add_prompts(project: Project) -> None:
    source = _demo_source(
        project,
        "The small world (made by this program)",
        "Generated from templates; split by what a question combines, so that held-out "
        "questions join words that no training question joins.",
    )
    _save_prompts(
        source,
        [
            (prompt.messages, prompt.category, prompt.risk, split)
            for split in SPLITS
            for prompt in make_prompts(split, SPLIT_SIZES[split], 0, harmful_share=HARMFUL_SHARE)
        ],
    )


def _demo_source(project: Project, name: str, note: str) -> Source:
    return Source.objects.create(
        project=project, name=name, licence="CC0-1.0", note=note, signed_off_at=timezone.now()
    )


def _save_prompts(source: Source, rows: Sequence[tuple[Any, str, str, str]]) -> None:
    """Save prompts, each as (messages, category, risk, split)."""
    prompts = [
        Prompt(
            project=source.project,
            source=source,
            messages=messages,
            sha256=content_hash(messages),
            category=category,
            risk=risk,
            split=split,
        )
        for messages, category, risk, split in rows
    ]
    Prompt.objects.bulk_create(prompts, batch_size=500)
    source.n_rows = len(prompts)
    source.save(update_fields=["n_rows"])


def demo_accounts(project: Project) -> dict[str, str]:
    """The demo's user names and passwords; created once per installation, in a file with mode 0600.

    An existing account with one of these names is not changed and gets no password.
    """
    path = settings.DATA_DIR / "demo-logins.json"
    logins: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    for name, (role, _) in CAST.items():
        user = User.objects.filter(username=name).first()
        if user is None:
            logins[name] = secrets.token_urlsafe(9)
            user = User(username=name, is_staff=name == "grace", is_superuser=name == "grace")
            user.set_password(logins[name])
            user.save()
        elif name not in logins:
            continue
        Membership.objects.get_or_create(user=user, project=project, defaults={"role": role})
    simulation.team(project)
    Source.objects.filter(project=project, signed_off_by=None, signed_off_at__isnull=False).update(
        signed_off_by=User.objects.get(username="grace")
    )
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(logins, file, indent=1)
    return logins
