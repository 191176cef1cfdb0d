"""Simulated annotators: labeled, biased, one of them a spammer, and through the same door as people."""

import threading

import pytest
from django.db import connection

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import submit_judgment
from annotation.models import Judgment, Membership, Prompt, User
from annotation.projects.batches import ResponseText, add_comparisons, create_batch, open_batch
from annotation.protocols import PRESETS
from rlhf import demo, simulation
from tests.factories import PromptFactory
from tests.rlhf.machine import real_transactions

pytestmark = pytest.mark.django_db

GOOD = "I won't help you with that."
TEXTS = ("Just glue the wood.", "Sure! First, ask nicely.", GOOD, "The sky looks nice today.")


@pytest.fixture
def world(db):
    project = demo.demo_project("tiny", "Tiny")
    project.overlap = 1
    project.save()
    return project


def batch_of(project, n, *, overlap=1, same=False):
    texts = (GOOD,) * 4 if same else TEXTS
    prompts = Prompt.objects.filter(project=project, split="train").order_by("pk")[:n]
    batch = create_batch(project, "Batch", overlap=overlap)
    rows = [(p, [ResponseText(text, "policy x") for text in texts]) for p in prompts]
    add_comparisons(batch, rows)
    return open_batch(batch, None)


def test_the_team_is_labeled_as_simulated_and_can_t_sign_in(world):
    people = [user for user, _ in simulation.team(world)]
    assert len(people) == 5
    assert all(user.is_simulated and user.username.startswith("sim-") for user in people)
    assert not any(user.has_usable_password() for user in people)
    assert {m.role for m in Membership.objects.filter(user__in=people)} == {"annotator"}
    assert [p.spammer for _, p in simulation.team(world)] == [False] * 4 + [True]
    assert User.objects.filter(is_simulated=True).count() == 5, "asking twice makes no more"


def test_a_person_who_has_the_name_keeps_it(world):
    User.objects.create(username="sim-ada")
    with pytest.raises(simulation.SimulationError, match="belongs to a person"):
        simulation.team(world)


def test_only_the_demo_s_world_can_be_simulated(project):
    with pytest.raises(simulation.SimulationError, match="demo's own prompts"):
        simulation.team(project)


def test_every_comparison_is_judged_by_as_many_as_it_needs_and_each_takes_a_share(world):
    batch = batch_of(world, 20, overlap=2)
    assert simulation.judge_batch(batch) == 40
    assert not batch.comparisons.exclude(judged=2).exists()
    by = Judgment.objects.values_list("assignment__annotator__username", flat=True)
    shares = {name: list(by).count(name) for name in set(by)}
    assert len(shares) == 5
    assert min(shares.values()) >= 4
    judgment = Judgment.objects.first()
    assert set(judgment.ranks) == {"helpfulness", "safety"}
    assert set(judgment.ranks["safety"]) == {str(pk) for pk in judgment.assignment.shown_order}
    assert judgment.seconds > 0


def test_the_first_response_as_shown_is_liked_a_little_more(world):
    """The bias is for the place on the page, so it needs the order that was shown."""
    batch = batch_of(world, 150)
    simulation.judge_batch(batch)
    first = last = 0
    for judgment in Judgment.objects.select_related("assignment"):
        shown = [str(pk) for pk in judgment.assignment.shown_order]
        ranks = judgment.ranks["helpfulness"]
        first += ranks[shown[0]] == 1
        last += ranks[shown[3]] == 1
    assert first > last


def test_people_and_programs_share_a_batch(world):
    ada = User.objects.create(username="ada")
    Membership.objects.create(user=ada, project=world, role="annotator")
    batch = batch_of(world, 6)
    mine = next_assignment(ada, world)
    simulation.judge_batch(batch)
    assert Judgment.objects.filter(assignment__annotator__is_simulated=True).count() == 5
    ranks = {str(pk): 1 for pk in mine.shown_order}
    answer = Answer(ranks={"helpfulness": ranks, "safety": ranks})
    submit_judgment(mine, by=mine.annotator, answer=answer, key=mine.uid)
    assert not batch.comparisons.exclude(judged=1).exists()


def test_a_question_that_the_world_doesn_t_know_is_skipped(world):
    strange = PromptFactory(
        project=world, messages=[{"role": "user", "content": "Who was Nansen?"}]
    )
    batch = create_batch(world, "Strange")
    add_comparisons(batch, [(strange, [ResponseText("A", "x"), ResponseText("B", "x")])])
    assert simulation.judge_batch(open_batch(batch, None)) == 0
    assert not Judgment.objects.exists()


@pytest.mark.parametrize("preset", sorted({*PRESETS} - {"demonstrate", "rewrite", "hh-rlhf"}))
def test_programs_judge_under_every_protocol_that_compares_or_rates(world, preset):
    chosen = PRESETS[preset]
    world.interface, world.protocol = chosen.interface, chosen.protocol.as_json()
    world.axes = [dict(axis) for axis in chosen.axes]
    world.save()
    prompts = list(Prompt.objects.filter(project=world)[:4])
    batch = create_batch(world, "Any")
    texts = ["Sure! You only have to ask.", "I don't know."]
    rows = [(prompt, [ResponseText(text, "x") for text in texts]) for prompt in prompts]
    add_comparisons(batch, rows)
    assert simulation.judge_batch(open_batch(batch, None)) == 4
    assert Judgment.objects.count() == 4


@real_transactions
def test_two_buttons_pressed_at_once_judge_everything_once(world):
    batch = batch_of(world, 30)
    gate = threading.Barrier(3)

    def press():
        gate.wait()
        simulation.judge_batch(batch)
        connection.close()

    threads = [threading.Thread(target=press) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Judgment.objects.count() == 30
    assert not batch.comparisons.exclude(judged=1, taken=1).exists()


def test_gold_tells_violations_on_harmful_prompts_only(world):
    prompts = {
        str(p.uid): {"messages": p.messages, "risk": p.risk, "category": p.category}
        for p in [
            Prompt.objects.filter(project=world, risk=risk).first()
            for risk in ("harmful", "harmless")
        ]
    }
    rows = [
        {"prompt_id": uid, "temperature": 1.0, "n_tokens": 5, "text": "Sure! You only have to ask."}
        for uid in (*prompts, "unknown")
    ]
    harmful, harmless = simulation.gold(prompts, rows)
    assert (harmful["violation"], harmful["refusal"]) == (True, None)
    assert (harmless["violation"], harmless["refusal"]) == (None, False)


# --- The demo project -------------------------------------------------------------------------


def test_the_demo_is_made_once_and_its_logins_stay(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    project = demo.demo_project()
    logins = demo.demo_accounts(project)
    assert set(logins) == {"grace", "ada", "ben", "rita"}
    assert demo.demo_project() == project
    assert demo.demo_accounts(project) == logins
    path = tmp_path / "demo-logins.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert User.objects.get(username="ada").check_password(logins["ada"])
    roles = dict(
        Membership.objects.filter(project=project, user__is_simulated=False).values_list(
            "user__username", "role"
        )
    )
    assert roles == {"grace": "admin", "ada": "annotator", "ben": "annotator", "rita": "researcher"}
    counts = {s: Prompt.objects.filter(project=project, split=s).count() for s in demo.SPLIT_SIZES}
    assert counts == demo.SPLIT_SIZES
    source = project.sources.get()
    assert (source.licence, source.is_signed_off) == ("CC0-1.0", True)


def test_an_account_that_was_there_before_keeps_its_password(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    ada = User(username="ada")
    ada.set_password("my own long password")
    ada.save()
    project = demo.demo_project()
    assert "ada" not in demo.demo_accounts(project)
    ada.refresh_from_db()
    assert ada.check_password("my own long password")
    assert not project.memberships.filter(user=ada).exists()
