"""Gold: mixed in so that nobody can tell, counted nowhere, and a round to pass before work begins."""

import re
import uuid
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from annotation.data.preferences import judgment_counts, preference_rows
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment, peek_next, waiting
from annotation.judge.gold_mixing import add_gold
from annotation.judge.gold_scores import Tally, share_right, tallies
from annotation.judge.leases import release_overdue
from annotation.judge.qualification import give_another_attempt, open_qualification
from annotation.judge.submitting import reopen, skip, submit_judgment
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Event,
    Membership,
    Prompt,
)
from annotation.projects.batches import batch_progress, open_batch
from annotation.protocols import PRESETS
from annotation.quality.gold_items import add_gold_items
from tests.annotation.gold_rows import gold_rows
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    ResponseFactory,
    member,
)

pytestmark = pytest.mark.django_db


def answer(assignment, *, right=True):
    """Ranks by id: the order in which gold items give their answers."""
    pks = sorted(assignment.shown_order, reverse=not right)
    ranks = {str(pk): place for place, pk in enumerate(pks, start=1)}
    axes = assignment.comparison.batch.project.axis_keys
    return submit_judgment(
        assignment,
        by=assignment.annotator,
        answer=Answer(ranks=dict.fromkeys(axes, ranks)),
        key=uuid.uuid4(),
    )


@pytest.fixture
def mixed(project, grace, ada):
    """30 comparisons of work, and 12 gold items of which one comes in every four."""
    project.gold_every = 4
    project.save()
    batch = BatchFactory(project=project, name="Round 1", state=Batch.State.DRAFT)
    for _ in range(30):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    add_gold_items(project, gold_rows(12), grace)
    return open_batch(batch, grace)


def test_score_by_hand():
    known = {"helpfulness": [1, 2, 2]}  # first beats both others; between those nothing is known
    assert share_right(known, {"helpfulness": [1, 2, 3]}) == 1
    assert share_right(known, {"helpfulness": [2, 1, 3]}) == 0.5
    assert share_right(known, {"helpfulness": [1, 1, 2]}) == 0.75
    assert share_right(known, {"helpfulness": [None, 1, 2]}) == 0
    assert share_right(known, {}) == 0
    assert share_right({"helpfulness": [1, 1]}, {"helpfulness": [1, 2]}) is None


def test_one_in_four_is_gold_once_in_every_four(mixed, project, ada):
    seen = []
    while assignment := next_assignment(ada, project):
        seen.append(assignment.comparison.gold_id is not None)
        answer(assignment)
    assert seen.count(False) == 30
    for start in range(0, 36, 4):
        assert sum(seen[start : start + 4]) == 1
    assert tallies(project)[ada.pk] == Tally(right=sum(seen), answered=sum(seen))


def test_gold_comes_at_other_places_for_other_people(mixed, project, ada, ben):
    Comparison.objects.filter(gold=None).update(needed=2)

    def places(who):
        found = []
        for place in range(24):
            assignment = next_assignment(who, project)
            found += [place] if assignment.comparison.gold_id else []
            answer(assignment)
        return found

    assert places(ada) != places(ben)


def test_the_numbers_on_the_page_fall_by_one_with_every_answer(mixed, project, ada):
    left = waiting(ada, project)
    assert left > 30
    while assignment := next_assignment(ada, project):
        peek_next(ada, project, assignment)
        assert waiting(ada, project) == left
        answer(assignment)
        left -= 1
        assert waiting(ada, project) == left
    assert left == 0


@pytest.mark.parametrize("every", [2, 3, 7, 10])
def test_what_is_promised_is_what_comes(project, grace, ada, every):
    project.gold_every = every
    project.save()
    batch = BatchFactory(project=project)
    for _ in range(17):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project), responses=2)
    add_gold_items(project, gold_rows(5, k=2), grace)
    promised, came = waiting(ada, project), 0
    while assignment := next_assignment(ada, project):
        answer(assignment)
        came += 1
    assert came == promised


def test_gold_is_no_data_and_no_progress(mixed, project, ada):
    while assignment := next_assignment(ada, project):
        answer(assignment)
    assert sum(1 for _ in preference_rows(project, only_trainable=False)) == 30
    assert judgment_counts(project)["current"] == 30
    progress = batch_progress(mixed)
    assert (progress["comparisons"], progress["needed"], progress["judged"]) == (30, 30, 30)
    for gold in Comparison.objects.filter(gold__isnull=False):
        assert (gold.needed, gold.taken, gold.judged, gold.is_free) == (0, 0, 0, False)


def shape(text):
    """A page or answer without what differs between any two comparisons."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|(?i:csrf)[^>]*>", "", text)
    text = re.sub(r"(What is \d+ plus one\?|How do I water plant number \d+\?)", "PROMPT", text)
    text = re.sub(r"(It is \d+\.|Answer \d+: give it a little water\.)", "ANSWER", text)
    return re.sub(r"\d+", "N", text)


def test_pages_and_api_look_the_same_for_gold(mixed, project, ada, client):
    client.force_login(ada)
    pages, answers, sent, histories = {}, {}, {}, {}
    for _ in range(8):
        assignment = next_assignment(ada, project)
        is_gold = assignment.comparison.gold_id is not None
        page = client.get(f"/projects/apollo/judge/{assignment.uid}/")
        pages.setdefault(is_gold, set()).add(shape(page.content.decode()))
        assert "gold" not in page.content.decode().lower()
        assert not any("gold" in f"{k}{v}".lower() for k, v in page.headers.items())
        api = client.post("/api/v1/projects/apollo/judging/next/")
        answers.setdefault(is_gold, set()).add(tuple(sorted(api.json())))
        letters = "ABCD"
        body = {
            "key": str(uuid.uuid4()),
            "ranks": {
                axis: {x: i + 1 for i, x in enumerate(letters)} for axis in project.axis_keys
            },
        }
        done = client.post(
            f"/api/v1/projects/apollo/judging/{assignment.uid}/submit/",
            body,
            content_type="application/json",
        ).json()
        sent.setdefault(is_gold, set()).add((done["revision"], done["is_extra"]))
    assert set(pages) == {True, False}
    assert pages[True] == pages[False]
    assert answers[True] == answers[False]
    assert sent[True] == sent[False] == {(1, False)}
    history = client.get("/projects/apollo/judge/history/").content.decode()
    assert "gold" not in history.lower()
    for row in history.split("</tr>")[1:-1]:
        kind = shape(re.sub(r"<time.*?</time>", "", row.split("<tr>")[-1], flags=re.S))
        histories[kind] = histories.get(kind, 0) + 1
    assert list(histories.values()) == [8]


def statements(queries):
    """What the database was asked, in order, without the values."""
    values = r"'[^']*'|\"s\d+_x\d+\"|\b\d+\b|0x[0-9a-f]+"
    return tuple(re.sub(values, "?", query["sql"]) for query in queries)


def test_the_server_does_the_same_work_for_gold_and_sends_the_same_bytes(
    project, grace, ada, client
):
    """What time and size could tell is decided by these; benchmarks/gold_timing.py measures them."""
    project.gold_every = 2
    project.random_share = 0.0
    project.save()
    batch = BatchFactory(project=project, name="Round 1", state=Batch.State.DRAFT)
    for number in range(20, 40):
        prompt = PromptFactory(
            project=project, messages=[{"role": "user", "content": f"Is {number} larger than 10?"}]
        )
        comparison = ComparisonFactory(batch=batch, prompt=prompt, responses=0)
        for word in "that":
            ResponseFactory(comparison=comparison, text=f"It is, {word}.")
    rows = [
        {
            "prompt": f"Is {number} larger than 10?",
            "responses": [f"It is, {word}." for word in "gold"],
            "ranks": [1, 2, 3, 4],
        }
        for number in range(60, 80)
    ]
    add_gold_items(project, rows, grace)
    open_batch(batch, grace)
    client.force_login(ada)
    seen = {}

    def watched(kind, about, call, *args, **kwargs):
        with CaptureQueriesContext(connection) as context:
            answer = call(*args, **kwargs)
        uid = about or re.search(r'uid"?[=:]"([0-9a-f-]{36})"', answer.content.decode())[1]
        headers = tuple(name for name in answer.headers if name != "X-Request-Id")
        shape = (answer.status_code, headers, len(answer.content), statements(context))
        is_gold = Assignment.objects.get(uid=uid).comparison.gold_id is not None
        seen.setdefault(kind, {}).setdefault(is_gold, []).append(shape)
        return uid, answer

    places = dict(zip("ABCD", (1, 2, 3, 4), strict=True))
    root = "/api/v1/projects/apollo/judging"
    for _ in range(8):
        uid, answer = watched("API next", "", client.post, f"{root}/next/")
        assert list(answer.json()) == [
            "uid", "state", "lease_until", "interface", "protocol", "messages", "responses", "draft",
            "guideline_version",
        ]  # fmt: skip
        body = {"key": str(uuid.uuid4()), "ranks": dict.fromkeys(project.axis_keys, places)}
        watched("API submit", uid, client.post, f"{root}/{uid}/submit/", body, "application/json")
    pages = "/projects/apollo/judge"
    uid = re.search(r'data-uid="([0-9a-f-]{36})"', client.get(f"{pages}/").content.decode())[1]
    for _ in range(8):
        following, _ = watched("page after", "", client.get, f"{pages}/{uid}/after/")
        fields = {"act": "send", "key": str(uuid.uuid4()), "seconds": "2"}
        fields |= {f"rank-{axis}-{x}": n for axis in project.axis_keys for x, n in places.items()}
        accept = {"Accept": "application/json"}
        watched("page send", uid, client.post, f"{pages}/{uid}/", fields, headers=accept)
        uid = following
    assert set(seen) == {"API next", "API submit", "page after", "page send"}
    for kind, of in seen.items():
        assert set(of) == {True, False}, kind
        # The first of a kind looks up what is then remembered, whatever it is about.
        assert len({*of[True][1:], *of[False][1:]}) == 1, kind


def test_gold_is_skipped_taken_back_and_answered_late_like_any_other(mixed, project, ada):
    gold = None
    while gold is None:
        assignment = next_assignment(ada, project)
        if assignment.comparison.gold_id:
            gold = assignment
        else:
            answer(assignment)
    skip(gold, "I can't judge this subject")
    again = reopen(gold)
    assert not again.is_extra
    answer(again)
    again.refresh_from_db()
    assert (again.state, again.is_extra) == ("judged", False)
    assert reopen(again).state == "leased"


def test_work_without_gold_hands_out_no_gold(project, grace, ada):
    batch = BatchFactory(project=project)
    ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    add_gold_items(project, gold_rows(3), grace)
    assert not batch.comparisons.filter(gold__isnull=False).exists()
    project.gold_every = 2
    project.save()
    assert add_gold(batch) == 3
    assert add_gold(batch) == 0


def test_gold_of_another_size_would_give_itself_away_and_stays_out(project, grace):
    batch = BatchFactory(project=project)
    ComparisonFactory(batch=batch, prompt=PromptFactory(project=project), responses=4)
    project.gold_every = 5
    project.save()
    add_gold_items(project, gold_rows(2, k=2), grace)
    assert not batch.comparisons.filter(gold__isnull=False).exists()


# --- The qualification round ---------------------------------------------------------------------------


@pytest.fixture
def strict(project, grace, ada):
    project.qualification_pass = 75
    project.save()
    batch = BatchFactory(project=project)
    for _ in range(3):
        ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    add_gold_items(project, gold_rows(4, qualification=True, mixed=False), grace)
    open_qualification(project)
    return Membership.objects.get(user=ada, project=project)


def take_round(who, project, n_right, n=4):
    for number in range(n):
        assignment = next_assignment(who, project)
        assert assignment.comparison.batch.qualification
        peek_next(who, project, assignment)
        answer(assignment, right=number < n_right)


def test_whoever_passes_is_handed_work(strict, project, ada):
    assert waiting(ada, project) == 4
    take_round(ada, project, 3)
    work = next_assignment(ada, project)
    assert work.comparison.gold_id is None
    strict.refresh_from_db()
    assert strict.qualification == "passed"
    assert strict.qualification_score["right"] == 3
    assert Event.objects.filter(verb="passed qualification").count() == 1


def test_whoever_fails_is_handed_nothing_until_another_attempt(strict, project, ada, grace):
    take_round(ada, project, 2)
    assert next_assignment(ada, project) is None
    strict.refresh_from_db()
    assert strict.qualification == "failed"
    assert waiting(ada, project) == 0
    give_another_attempt(strict, grace)
    take_round(ada, project, 4)
    assert next_assignment(ada, project).comparison.gold_id is None


def test_the_result_is_shown_and_the_answers_are_not(strict, project, ada, client):
    take_round(ada, project, 1)
    client.force_login(ada)
    page = client.get("/projects/apollo/judge/").content.decode()
    assert "1 of 4" in page
    assert "plus one" not in page
    assert "It is" not in page


def test_reviewers_and_programs_need_no_round(strict, project, vera):
    assert next_assignment(vera, project).comparison.gold_id is None
    sim = member(project, "sim", "annotator")
    sim.is_simulated = True
    sim.save()
    assert next_assignment(sim, project).comparison.gold_id is None


def test_who_can_see_what_is_gold_is_handed_none_and_counted_on_none(mixed, project, vera, ada):
    """vera reviews, so her pages say what is gold; it would measure her memory."""
    for who in (vera, member(project, "gert", "admin")):
        assert waiting(who, project) == 30
        for _ in range(12):
            assert answer(next_assignment(who, project)).assignment.comparison.gold_id is None
        for assignment in Assignment.objects.filter(annotator=who):
            reopen(assignment)
            skip(assignment, "unsure")
    # What ada answered before she became a reviewer, and what she is given when she is none again.
    for _ in range(8):
        answer(next_assignment(ada, project))
    assert tallies(project)[ada.pk] == Tally(right=2, answered=2)
    ours = Membership.objects.get(user=ada, project=project)
    for role in ("reviewer", "annotator"):
        Membership.objects.update_or_create(user=ada, project=project, defaults={"role": role})
        assert tallies(project) == {}
        assert answer(next_assignment(ada, project)).assignment.comparison.gold_id is None
    ours.refresh_from_db()
    assert ours.knows_gold
    assert waiting(ada, project) == Comparison.objects.filter(is_free=True, gold=None).count()


def test_the_page_says_who_is_not_measured_by_gold(mixed, project, vera, grace, client):
    answer(next_assignment(vera, project))
    client.force_login(grace)
    page = client.get("/projects/apollo/quality/").content.decode()
    assert "Knows the gold items, so gets none." in page
    page = client.get(f"/projects/apollo/quality/people/{vera.pk}/").content.decode()
    assert "Knows the gold items, so gets none." in page


def test_whoever_avoids_harmful_material_is_given_none_as_gold_either(mixed, project, ada):
    """Every gold item is harmful here: ada is handed the harmless work, and nothing else."""
    Prompt.objects.filter(comparisons__gold__isnull=False).update(risk="harmful")
    ada.harmful_material = "avoid"
    ada.save()
    promised, handed = waiting(ada, project), []
    while assignment := next_assignment(ada, project):
        handed.append(assignment.comparison)
        answer(assignment)
    assert len(handed) == promised == 30
    assert not any(comparison.gold_id for comparison in handed)


def test_whoever_avoids_harmful_material_qualifies_on_the_rest(strict, project, ada):
    comparisons = Comparison.objects.filter(batch__qualification=1)
    n = comparisons.count()
    Prompt.objects.filter(pk=comparisons.first().prompt_id).update(risk="harmful")
    ada.harmful_material = "avoid"
    ada.save()
    take_round(ada, project, n - 1, n - 1)
    assert next_assignment(ada, project).comparison.gold_id is None
    membership = Membership.objects.get(user=ada, project=project)
    assert membership.qualification == "passed"
    assert membership.qualification_score["of"] == n - 1


def test_who_had_begun_work_before_there_was_a_round_goes_on_with_it_afterwards(
    project, ada, grace
):
    ComparisonFactory(batch=BatchFactory(project=project), prompt=PromptFactory(project=project))
    begun = next_assignment(ada, project)
    Assignment.objects.update(lease_until=timezone.now() - timedelta(minutes=1))
    release_overdue()
    add_gold_items(project, gold_rows(1, qualification=True, mixed=False), grace)
    project.qualification_pass = 50
    project.save()
    open_qualification(project)
    answer(next_assignment(ada, project))
    assert next_assignment(ada, project) == begun


def test_what_a_top_k_ranking_leaves_out_is_said_to_be_behind(project, ada, grace):
    preset = PRESETS["top-k"]
    project.protocol, project.gold_every = preset.protocol.as_json(), 2
    project.save()
    batch = BatchFactory(
        project=project, state="draft", interface="rank", protocol=project.protocol
    )
    ComparisonFactory(batch=batch, prompt=PromptFactory(project=project))
    add_gold_items(project, gold_rows(1), grace)
    open_batch(batch, grace)
    comparison = Comparison.objects.get(gold__isnull=False)
    best, *_ = comparison.responses.order_by("pk").values_list("pk", flat=True)
    assignment = Assignment.objects.create(
        comparison=comparison,
        annotator=ada,
        shown_order=list(comparison.responses.values_list("pk", flat=True)),
        lease_until=timezone.now(),
    )
    ranks = {axis: {str(best): 1} for axis in project.axis_keys}
    submit_judgment(assignment, by=ada, answer=Answer(ranks=ranks), key=uuid.uuid4())
    assert tallies(project) == {ada.pk: Tally(1, 1)}


def test_another_attempt_given_twice_is_one_attempt(project, ada, grace):
    member = project.memberships.get(user=ada)
    Membership.objects.filter(pk=member.pk).update(qualification="failed")
    for _ in range(2):
        give_another_attempt(Membership.objects.get(pk=member.pk), grace)
    member.refresh_from_db()
    assert (member.attempt, member.qualification) == (2, "")
