"""Guidelines have versions: each judgment keeps its own, a change is shown once and can be measured."""

import re

import pytest
from django.urls import reverse
from django.utils import timezone

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import submit_judgment
from annotation.lib.word_diff import word_diff
from annotation.models import Batch, Comparison, Event, Judgment, Prompt, User
from annotation.projects.guidelines import change_guidelines, request_reannotation, unseen_change
from tests.annotation.audit import assert_counters_are_right
from tests.factories import BatchFactory, ComparisonFactory, judged, key

pytestmark = pytest.mark.django_db


def judge(user, project):
    handed = next_assignment(user, project)
    ranks = {str(pk): n for n, pk in enumerate(handed.shown_order, start=1)}
    answer = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
    return submit_judgment(handed, by=handed.annotator, answer=answer, key=key())


@pytest.fixture
def judged_by_ada(project, ada):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(10):
        ComparisonFactory(batch=batch)
        judge(ada, project)
    return batch


def test_a_change_is_a_new_version_and_judgments_keep_theirs(project, ada, grace, judged_by_ada):
    ComparisonFactory(batch=judged_by_ada)
    first = project.guidelines
    change_guidelines(project, "Prefer what is *true*.", by=grace)
    project.refresh_from_db()
    judge(ada, project)
    assert project.guideline_version == 2
    texts = dict(project.guideline_versions.values_list("version", "text"))
    assert texts == {1: first, 2: "Prefer what is *true*."}
    assert list(Judgment.objects.order_by("pk").values_list("guideline_version", flat=True)) == [
        1
    ] * 10 + [2]
    assert Event.objects.filter(verb="changed guidelines", target="version 2").count() == 1


def test_the_same_words_are_no_change(project, grace):
    assert change_guidelines(project, project.guidelines, by=grace, share=1.0) == 0
    project.refresh_from_db()
    assert project.guideline_version == 1
    assert not project.guideline_versions.exists()


def test_a_share_of_what_was_judged_goes_to_one_more_person(
    project, ada, ben, grace, judged_by_ada
):
    assert change_guidelines(project, "New.", by=grace, share=0.3) == 3
    assert Comparison.objects.filter(needed=2, is_free=True).count() == 3
    project.refresh_from_db()
    assert next_assignment(ada, project) is None, "nobody judges the same twice"
    again = {judge(ben, project).assignment.comparison_id for _ in range(3)}
    assert len(again) == 3
    assert next_assignment(ben, project) is None
    versions = Judgment.objects.filter(assignment__comparison__in=again)
    assert sorted(versions.values_list("guideline_version", flat=True)) == [1, 1, 1, 2, 2, 2]
    assert_counters_are_right()


def test_what_is_closed_or_that_everybody_has_judged_is_not_judged_again(
    project, ada, grace, judged_by_ada
):
    Batch.objects.update(state="closed")
    assert change_guidelines(project, "New.", by=grace, share=1.0) == 0
    Batch.objects.update(state="open")
    project.memberships.filter(user=grace).update(role="researcher")
    assert change_guidelines(project, "Newer.", by=grace, share=1.0) == 0, "only ada judges here"


def test_the_admin_says_how_many_on_the_settings_page(
    client, project, ada, ben, grace, judged_by_ada
):
    client.force_login(grace)
    url = reverse("project_settings", args=["apollo"])
    fields = {
        name: getattr(project, name)
        for name in ("name", "overlap", "responses_per_comparison", "lease_minutes")
    }
    given = fields | {"description": "", "guidelines": "Be kind.", "judge_again": 20, "act": "save"}
    page = client.post(url, given, follow=True)
    assert "2 comparisons are judged again." in page.content.decode()
    assert Comparison.objects.filter(needed=2).count() == 2
    assert client.post(url, given | {"judge_again": 101}).status_code == 422


def test_what_changed_is_shown_once_to_whoever_knew_the_old_words(client, project, ada, ben, grace):
    batch = BatchFactory(project=project)
    for _ in range(3):
        ComparisonFactory(batch=batch)
    url = reverse("judge", args=["apollo"])
    client.force_login(ada)
    assert "have changed" not in client.get(url).content.decode()
    words = project.guidelines.replace("harms nobody", "harms <b>no one</b>")
    change_guidelines(project, words, by=grace)
    page = client.get(url).content.decode()
    assert "The guidelines have changed" in page
    assert "<del>nobody</del>" in page
    assert "<ins>&lt;b&gt;no one&lt;/b&gt;</ins>" in page, "shown as text, whatever it holds"
    client.post(reverse("guidelines_seen", args=["apollo"]), {"version": "2"})
    assert "have changed" not in client.get(url).content.decode()
    client.force_login(ben)  # who never saw the old ones
    assert "have changed" not in client.get(url).content.decode()


def test_nobody_has_read_what_is_not_written_yet(client, project, ada, grace):
    client.force_login(ada)
    client.get(reverse("judge", args=["apollo"]))
    for nonsense in ("99", "-1", "x", "", "9" * 30):
        client.post(reverse("guidelines_seen", args=["apollo"]), {"version": nonsense})
    change_guidelines(project, "New.", by=grace)
    change = unseen_change(project.memberships.select_related("project").get(user=ada))
    assert (change.known, change.version) == (1, 2)


def test_every_version_can_be_read_with_what_it_changed(client, project, ada, grace, judged_by_ada):
    change_guidelines(project, "Prefer the shorter answer.", by=grace)
    client.force_login(ada)
    page = client.get(reverse("guidelines", args=["apollo"])).content.decode()
    assert "Version 2 is current, with 0 judgments." in page
    assert "10 judgments" in page
    assert "<ins>shorter" in page


def test_a_difference_reads_as_one_text():
    assert word_diff("a b c", "a x c") == "a <del>b</del><ins>x</ins> c"
    assert word_diff("", "new") == "<ins>new</ins>"
    assert word_diff("same", "same") == "same"
    long = "word\n" * 7000
    assert word_diff(long, long + "end").endswith("<ins>end</ins>")


def test_nobody_who_left_or_is_paused_is_counted_on_to_judge_again(project, ada, ben):
    judged(project, by=ada)
    assert request_reannotation(project, 1.0) == 1
    Comparison.objects.update(needed=1, is_free=False)
    User.objects.filter(pk=ben.pk).update(is_active=False)
    assert request_reannotation(project, 1.0) == 0
    User.objects.filter(pk=ben.pk).update(is_active=True)
    project.memberships.filter(user=ben).update(paused_at=timezone.now())
    assert request_reannotation(project, 1.0) == 0


def test_an_answer_notes_the_version_that_its_page_showed_and_none_that_is_not_written(
    client, project, ada, grace
):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(5):
        ComparisonFactory(batch=batch)
    client.force_login(ada)
    noted = []
    for sent in (None, "1", "2", "99", "nonsense"):
        page = client.get(reverse("judge", args=["apollo"])).content.decode()
        if sent is None:  # What the page says by itself; the guidelines change while it is open.
            sent = re.search(r'name="guideline_version" value="(\d+)"', page)[1]
            change_guidelines(project, "Prefer what is *true*.", by=grace)
        uid = re.search(r'data-uid="([0-9a-f-]{36})"', page)[1]
        fields = {"act": "send", "key": str(key()), "guideline_version": sent}
        for axis in project.axis_keys:
            fields |= {f"rank-{axis}-{letter}": "1" for letter in "ABCD"}
        for _ in range(2):  # Sent twice it is one judgment, whatever the version says by then.
            client.post(reverse("judge_one", args=["apollo", uid]), fields)
            fields["guideline_version"] = "2"
        noted.append(Judgment.objects.order_by("pk").last().guideline_version)
    assert noted == [1, 1, 2, 2, 2]
    assert Judgment.objects.count() == 5


def test_a_program_is_told_the_version_and_sends_it_back(client, project, ada, grace):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(4):
        ComparisonFactory(batch=batch)
    client.force_login(ada)
    root = "/api/v1/projects/apollo/judging"
    ranks = dict.fromkeys(project.axis_keys, dict.fromkeys("ABCD", 1))

    def submit(shown, **more):
        body = {"key": str(key()), "ranks": ranks} | more
        return client.post(f"{root}/{shown['uid']}/submit/", body, "application/json").status_code

    shown = client.post(f"{root}/next/").json()
    assert shown["guideline_version"] == 1
    change_guidelines(project, "Prefer what is *true*.", by=grace)
    assert submit(shown, guideline_version=1) == 200
    assert submit(client.post(f"{root}/next/").json()) == 200
    assert submit(client.post(f"{root}/next/").json(), guideline_version=7) == 200
    assert submit(client.post(f"{root}/next/").json(), guideline_version=0) == 400
    versions = Judgment.objects.order_by("pk").values_list("guideline_version", flat=True)
    assert list(versions) == [1, 2, 2]


def test_who_only_reviews_or_runs_the_project_is_not_counted_on(project, ada, ben, vera, grace):
    judged(project, by=ada)
    judged(project, by=ben)
    project.memberships.filter(user=ben).update(paused_at=timezone.now())
    # ada has had hers; vera reviews and grace runs the project.
    assert request_reannotation(project, 1.0) == 1
    Comparison.objects.update(needed=1, is_free=False)
    judged(project, by=vera)  # She judges as well, so she may be asked.
    assert request_reannotation(project, 1.0) == 3


def test_nobody_is_asked_for_what_they_would_never_be_handed(project, ada, ben):
    held = judged(project, by=ada).comparison
    Comparison.objects.filter(pk=held.pk).update(skill="de")
    assert request_reannotation(project, 1.0) == 0
    project.memberships.filter(user=ben).update(skills=["de"], campaign="spring")
    assert request_reannotation(project, 1.0) == 0
    project.memberships.filter(user=ben).update(campaign="")
    Prompt.objects.update(risk=Prompt.Risk.HARMFUL)
    User.objects.filter(pk=ben.pk).update(harmful_material=User.HarmfulMaterial.AVOID)
    assert request_reannotation(project, 1.0) == 0
    User.objects.filter(pk=ben.pk).update(harmful_material=User.HarmfulMaterial.SHOW)
    assert request_reannotation(project, 1.0) == 1
    assert next_assignment(ben, project).comparison_id == held.pk
