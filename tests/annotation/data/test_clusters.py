"""Near-duplicates never straddle splits: not within a file, not across imports, not by the file's own word."""

import io
import json

import pytest

from annotation.data.imports import import_prompts
from annotation.models import Prompt

pytestmark = pytest.mark.django_db

SOURCE = {"name": "Greenhouse", "licence": "CC0-1.0", "url": ""}


def take_in(project, grace, *texts, split="auto", **row):
    rows = [json.dumps({"prompt": text, **row}) for text in texts]
    file = io.BytesIO("\n".join(rows).encode())
    report = import_prompts(project, file, source=SOURCE, by=grace, split=split)
    assert report.ok, report.problems
    return [Prompt.objects.get(messages__0__content=text) for text in texts]


def test_near_duplicates_of_one_file_share_cluster_and_split(project, grace):
    plants = "fern cactus rose lily basil mint tulip palm orchid daisy".split()  # noqa: SIM905
    for plant in plants:
        text = f"How often should I water the {plant} on my balcony in a hot summer"
        prompts = take_in(project, grace, text, f"{text}?", f"{text.upper()} ??")
        assert len({prompt.split for prompt in prompts}) == 1
        assert {prompt.cluster for prompt in prompts} <= set(
            project.prompts.values_list("pk", flat=True)
        )
        assert len({prompt.cluster for prompt in prompts}) == 1


def test_a_later_file_follows_the_earlier_one_for_good(project, grace):
    (held_out,) = take_in(project, grace, "Why do cats purr at night?", split="heldout")
    later = take_in(
        project, grace, "Why do cats purr at night", "why do CATS purr at night!", split="train"
    )
    assert [prompt.split for prompt in later] == ["heldout", "heldout"]
    assert {prompt.cluster for prompt in later} == {held_out.pk}
    held_out.refresh_from_db()
    assert held_out.split == "heldout"


def test_other_questions_and_other_numbers_are_not_kept_together(project, grace):
    take_in(project, grace, "What is the sum of 17 and 25?", split="heldout")
    other = take_in(
        project, grace, "What is the sum of 17 and 26?", "Name a planet.", split="train"
    )
    assert [prompt.split for prompt in other] == ["train", "train"]
    assert len({prompt.cluster for prompt in other}) == 2
