"""Active selection: a real ensemble's disagreement decides what people get next."""

import itertools
import math
import random

import pytest

from annotation.judge.assignment import next_assignment
from annotation.judge.selection import random_sample
from annotation.judge.submitting import skip
from annotation.models import Assignment, Comparison, Event
from annotation.projects.batches import (
    ResponseText,
    add_comparisons,
    close_batch,
    create_batch,
    open_batch,
)
from rlhf import rounds
from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import default_config
from rlhf.selection import select
from rlhf.stages.selection import prepare_selection
from rlhf.training import configs, rundir
from rlhf.training.settings import load
from rlhf.workers.next_job import run_next_job
from tests.factories import BatchFactory, PromptFactory, SourceFactory, judged, member
from tests.rlhf.machine import own_data_folder, ready, real_transactions
from tests.rlhf.training.tiny import WORDS, make_policy

pytestmark = real_transactions

Drawn = Assignment.Drawn
GOOD, BAD = "yes nice please", "no sorry burn"


@pytest.fixture
def judged_before(project, tmp_path, settings):
    """People ranked twenty prompts, and a tiny policy for reward models to grow on."""
    own_data_folder(settings, tmp_path)
    policy = ready(project, policy=str(make_policy(tmp_path / "policy")))
    batch = BatchFactory(project=project)
    for i in range(20):
        assignment = judged(project, batch=batch, ranks=(1, 2))
        responses = assignment.comparison.responses.order_by("pk")
        for response, words in zip(responses, (GOOD, BAD), strict=True):
            response.text = f"{words} {WORDS[i % len(WORDS)]}"
            response.save()
    close_batch(batch, None)
    return batch, policy


@pytest.fixture
def waiting(project, judged_before):
    """An open batch: pairs of all sorts, one of them twice the same answer, one written long ago."""
    _, policy = judged_before
    old = Checkpoint.objects.create(
        project=project, kind="policy", name="earlier", state="promoted", path="gone"
    )
    Checkpoint.objects.filter(pk=policy.pk).update(created_at=old.created_at)
    Checkpoint.objects.filter(pk=old.pk).update(created_at="2020-01-01T00:00Z")
    source, draw = SourceFactory(project=project), random.Random(5)
    batch = create_batch(project, "Next")
    rows = []
    for i in range(12):
        texts = [" ".join(draw.choices(WORDS, k=6)) for _ in range(3)]
        if i == 0:
            texts = [texts[0]] * 3
        wrote = old if i == 1 else policy
        prompt = PromptFactory(project=project, source=source)
        rows.append((prompt, [ResponseText(text, f"policy {wrote.uid}") for text in texts]))
    add_comparisons(batch, rows)
    return open_batch(batch, None)


def reward_round(project, grace, batch, members):
    """A round of reward models alone, as its page launches it, with real programs for real jobs."""
    everything = default_config(project, "ci")
    config = {name: everything[name] for name in ("round", "reward_model")}
    config["reward_model"] |= {"members": members, "epochs": 1, "max_length": 64, "prior": False}
    job = rounds.open_reward_round(project, [batch], grace, config)
    for queue in ("default", "gpu", "gpu", "gpu"):
        job = run_next_job(queue, owner="hal") or job
        assert job.state == Job.State.DONE, job.reason
    return Round.objects.get(pk=job.round_id)


def handed(person, project):
    """What this person is given until nothing is left, each with how it was drawn."""
    given = []
    while (assignment := next_assignment(person, project)) is not None:
        given.append(assignment)
        skip(assignment, reason="Only looking")
    return given


def told_again(model, comparison):
    """From the members' opinions alone: for each pair the entropy of what they expect together, less
    the mean entropy of what each expects; averaged over pairs, then over axes."""
    texts = [r.text for r in comparison.responses.order_by("pk")]
    conversations = [comparison.prompt.messages] * len(texts)
    per_axis = []
    for opinions in model.member_scores(conversations, texts, standardized=False).values():
        members = opinions.tolist()
        information = []
        for a, b in itertools.combinations(members, 2):
            wins = [1 / (1 + math.exp(y - x)) for x, y in zip(a, b, strict=True)]
            each = sum(map(entropy, wins)) / len(wins)
            information.append(entropy(sum(wins) / len(wins)) - each)
        per_axis.append(sum(information) / len(information))
    return sum(per_axis) / len(per_axis)


def entropy(p):
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


def test_people_are_asked_first_where_the_new_ensemble_disagrees_most(
    project, ada, grace, judged_before, waiting
):
    from rlhf.training.reward_models.folder import load_reward_model
    from rlhf.training.selection import exponential

    project.random_share = 0.0
    project.save()
    round = reward_round(project, grace, judged_before[0], members=4)
    assert round.state == Round.State.DONE, "a job outside the plan keeps no round open"
    folder = round.checkpoints.get(kind="reward_model").path
    model = load_reward_model(folder)
    comparisons = list(waiting.comparisons.order_by("pk"))
    expected = {c.pk: told_again(model, c) for c in comparisons}
    for comparison in comparisons:
        recency = 0.5 if comparison == comparisons[1] else 1.0
        drawn = recency / exponential(str(folder), str(comparison.pk))
        assert comparison.score == pytest.approx(
            expected[comparison.pk] * drawn, rel=1e-3, abs=1e-6
        )
    assert comparisons[0].score == 0, "nobody disagrees on the same answer three times"
    assert len({c.score for c in comparisons}) == 12

    order = [assignment.comparison for assignment in handed(ada, project)]
    assert order == sorted(comparisons, key=lambda c: -c.score)
    assert order[-1] == comparisons[0]
    waiting.refresh_from_db()
    assert waiting.scored_at is not None
    assert waiting.scored_by == "round 1 reward model"
    assert Event.objects.filter(verb="scored waiting comparisons in").count() == 1


def test_the_share_of_random_stays_random_whatever_the_ensemble_says(
    project, ada, grace, judged_before, waiting
):
    project.random_share = 0.5
    project.save()
    reward_round(project, grace, judged_before[0], members=3)
    given = handed(ada, project)
    at_random = [a for a in given if a.drawn == Drawn.RANDOM]
    by_score = [a for a in given if a.drawn == Drawn.RANKED]
    assert at_random  # twelve throws of a fair coin: all alike once in 2000
    assert by_score
    shuffles = [a.comparison.shuffle for a in at_random]
    assert shuffles == sorted(shuffles), "in the order that was drawn before anything was known"
    scores = [a.comparison.score for a in by_score]
    assert scores == sorted(scores, reverse=True)


def test_one_opinion_disagrees_with_nobody_so_the_queue_stays_as_it_is(
    project, grace, judged_before, waiting
):
    everything = default_config(project, "ci")
    assert everything["reward_model"]["members"] == 1
    Checkpoint.objects.create(
        project=project, kind="reward_model", name="alone", path="x", config={"members": 1}
    )
    round = Round.objects.create(project=project, number=1, state="reward_model")
    assert select(round) is None
    assert set(Comparison.objects.values_list("score", flat=True)) == {0.0}


def test_what_the_ensemble_cannot_read_is_said_and_the_round_goes_on(
    project, grace, judged_before, waiting
):
    Checkpoint.objects.create(
        project=project, kind="reward_model", name="lost", path="gone", config={"members": 3}
    )
    round = Round.objects.create(project=project, number=1, state="ppo", plan=["ppo"])
    assert select(round).stage == "selection"
    assert select(round) is None, "one that waits is enough"
    job = run_next_job("gpu", owner="hal")
    assert job.state == Job.State.FAILED
    assert "'gone' does not exist" in job.reason
    assert Round.objects.get(pk=round.pk).state == "ppo"
    event = Event.objects.get(verb="could not score comparisons in")
    assert "does not exist" in event.data["reason"]


def test_an_admin_has_a_batch_made_by_hand_scored_and_sees_what_became_of_it(
    client, project, grace, judged_before, waiting
):
    page = f"/projects/{project.slug}/rounds/selection/"
    client.force_login(grace)
    before = client.get(page).content.decode()
    assert "No reward model has several members" in before
    assert "disabled" in before.split('<form class="form section"')[1].split("</form>")[0]
    client.post(page)
    assert not Job.objects.filter(stage="selection").exists(), (
        "what is disabled does nothing either"
    )
    reward_round(project, grace, judged_before[0], members=3)
    Comparison.objects.update(score=0)
    Job.objects.filter(stage="selection").delete()
    assert f'href="{page}"' in client.get(f"/projects/{project.slug}/").content.decode()
    assert "12 comparisons, 0 of them scored" in client.get(page).content.decode()
    client.post(page)
    client.post(page)  # twice is once
    job = Job.objects.get(stage="selection")
    assert "Scoring is already running." in client.get(page).content.decode()
    assert run_next_job("gpu", owner="hal") == job
    after = client.get(page).content.decode()
    assert "12 of them scored" in after or "11 of them scored" in after
    assert "as in the last run" in after
    assert Event.objects.filter(verb="asked to score comparisons with").count() == 1
    # Half is handed out at random: the random sample ends where the last of those was drawn.
    project.random_share = 0.5
    project.save()
    handed(member(project, "eve", "annotator"), project)
    sample = random_sample(waiting).count()
    row = client.get(page).content.decode().split('id="random-sample"')[1].split("</table>")[0]
    assert f'data-label="Random sample">{sample}<' in row
    # What went wrong is said as well.
    Checkpoint.objects.filter(kind="reward_model").update(path="gone")
    client.post(page)
    run_next_job("gpu", owner="hal")
    assert "does not exist" in client.get(page).content.decode()


@pytest.mark.parametrize(
    ("role", "sees"),
    [("admin", True), ("researcher", True), ("annotator", False), ("reviewer", False)],
)
def test_the_projects_page_says_what_decides_to_those_who_do_not_judge_blind(
    client, project, waiting, role, sees
):
    from annotation.judge.selection import score_comparisons

    first = waiting.comparisons.first()
    score_comparisons(waiting, {first.pk: 0.7}, by="round 3 reward model")
    client.force_login(member(project, "someone", role))
    page = client.get(f"/projects/{project.slug}/").content.decode()
    assert ("round 3 reward model" in page) == sees
    assert ("1 of 12 waiting comparisons are scored" in page) == sees
    assert ("10 % are sampled at random" in page) == sees


def test_selection_reads_what_the_web_side_wrote(project, waiting, tmp_path):
    from rlhf.training.data import read_comparisons

    Checkpoint.objects.create(
        project=project, kind="reward_model", name="rm", path="models/rm", config={"members": 2}
    )
    round = Round.objects.create(project=project, number=1, state="reward_model")
    (tmp_path / "run" / rundir.DATA).mkdir(parents=True)
    prepare_selection(Job(project=project, round=round), tmp_path / "run")
    rows = {int(row.comparison_id): row for row in read_comparisons(tmp_path / "run")}
    comparisons = list(waiting.comparisons.order_by("pk"))
    assert set(rows) == {c.pk for c in comparisons}
    assert [rows[c.pk].age for c in comparisons] == [0, 1] + [0] * 10
    config = load(configs.SelectionConfig, tmp_path / "run" / rundir.CONFIG)
    assert config.reward_model == "models/rm"
