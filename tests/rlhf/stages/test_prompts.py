"""Which prompts a round uses: the same at every call, none of the wrong split."""

import pytest
from django.utils import timezone

from annotation.models import Prompt
from rlhf import rounds
from rlhf.stages.prompts import PURPOSES, choose
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
)
from tests.rlhf.machine import (
    launch,
)

pytestmark = pytest.mark.django_db


def test_the_chosen_prompts_are_the_same_at_every_call(project, base, grace):
    round = launch(project, grace).round
    before = {purpose: choose(round, purpose) for purpose in PURPOSES}
    for _ in range(20):
        PromptFactory(project=project, source=Prompt.objects.first().source)
    assert {purpose: choose(round, purpose) for purpose in PURPOSES} == before
    assert len(before["ranking"]) == 6


def test_training_sees_no_held_out_watch_or_unsigned_prompt(project, base, grace):
    unsigned = SourceFactory(project=project, signed_off_at=None)
    for _ in range(30):
        PromptFactory(project=project, source=unsigned)
    round = launch(project, grace, ranking_prompts=100, ppo_prompts=100).round
    for purpose in ("ranking", "ppo"):
        for prompt in choose(round, purpose):
            assert (prompt.split, prompt.source.is_signed_off) == ("train", True)
    assert {p.split for p in choose(round, "watch")} == {"eval"}
    assert {p.split for p in choose(round, "heldout")} == {"heldout"}


def test_a_prompt_judged_in_an_earlier_round_is_not_ranked_again(project, base, grace):
    first = launch(project, grace).round
    prompts = set(choose(first, "ranking"))
    batch = BatchFactory(project=project, created_at=timezone.now())
    for prompt in prompts:
        ComparisonFactory(batch=batch, prompt=prompt)
    rounds.cancel_round(first, grace)
    second = launch(project, grace).round
    assert not prompts & set(choose(second, "ranking"))
    assert set(choose(first, "ranking")) == prompts, "the first round's choice has not moved"


def test_a_prompt_that_somebody_wrote_the_ideal_answer_to_is_still_ranked(project, base, grace):
    batch = BatchFactory(project=project, interface="demonstrate")
    everything = Prompt.objects.filter(project=project, split="train")
    for prompt in everything:
        ComparisonFactory(batch=batch, prompt=prompt)
    round = launch(project, grace, ranking_prompts=100).round
    assert len(choose(round, "ranking")) == everything.count()


def test_the_share_of_harmful_prompts_is_kept_and_gaps_are_filled(project, base, grace):
    round = launch(project, grace, ranking_prompts=8, harmful_share=0.5).round
    harmful = [p for p in choose(round, "ranking") if p.risk == "harmful"]
    assert len(harmful) == 4
    round.config["round"] |= {"ranking_prompts": 12, "harmful_share": 0.9}
    assert len(choose(round, "ranking")) == 12, "all four harmful ones and eight others"
