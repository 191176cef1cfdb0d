import json
import re

import pytest
from django.urls import reverse

from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment, peek_next
from annotation.judge.drafts import save_draft
from annotation.judge.submitting import ruling_assignment, submit_judgment
from annotation.models import (
    Assignment,
    Comparison,
    Event,
    Judgment,
    Membership,
    Project,
    Response,
)
from annotation.protocols import PRESETS
from tests.annotation.audit import assert_counters_are_right
from tests.annotation.lib.test_markdown import HOSTILE
from tests.factories import BatchFactory, ComparisonFactory, ResponseFactory, judged, key

State = Assignment.State
JUDGE = "/projects/apollo/judge/"


@pytest.fixture
def batch(project):
    batch = BatchFactory(project=project, name="Round 1")
    for _ in range(2):
        ComparisonFactory(batch=batch)
    return batch


@pytest.fixture
def handed(batch, project, ada):
    return next_assignment(ada, project)


def form(**more):
    fields = {"act": "send", "key": str(key()), "seconds": "4.2"}
    for axis in ("helpfulness", "safety"):
        fields |= {f"rank-{axis}-{letter}": str(i + 1) for i, letter in enumerate("ABCD")}
    return fields | more


def address(assignment, name="judge_one"):
    return reverse(name, args=["apollo", assignment.uid])


def test_the_form_works_without_script(client, ada, handed):
    client.force_login(ada)
    fields = form(**{"flag-B": ["unsafe", "rude"], "harm-B": "theft", "reason": "because"})
    answer = client.post(address(handed), fields)
    assert (answer.status_code, answer["Location"]) == (302, "/projects/apollo/judge/")
    judgment = Judgment.objects.get()
    ids = [str(pk) for pk in handed.shown_order]
    assert judgment.ranks["safety"] == {pk: i + 1 for i, pk in enumerate(ids)}
    assert judgment.flags == {
        ids[1]: [{"kind": "unsafe", "category": "theft"}, {"kind": "rude", "category": ""}]
    }
    assert judgment.seconds == 4.2
    assert client.post(address(handed), fields).status_code == 302
    assert Judgment.objects.count() == 1
    assert_counters_are_right()


def test_a_refused_answer_keeps_what_was_typed(client, ada, handed):
    client.force_login(ada)
    answer = client.post(address(handed), {"act": "send", "key": str(key()), "reason": "my words"})
    assert answer.status_code == 422
    assert "rank at least two responses" in answer.content.decode()
    assert "my words" in answer.content.decode()
    assert not Judgment.objects.exists()


def test_one_press_skips_and_another_reason_can_be_typed(client, ada, project, handed):
    client.force_login(ada)
    client.post(address(handed), form(skip="I can't judge this subject"))
    handed.refresh_from_db()
    assert (handed.state, handed.skip_reason) == (State.SKIPPED, "I can't judge this subject")
    after = next_assignment(ada, project)
    client.post(address(after), form(skip="other", skip_other="in Latin"))
    after.refresh_from_db()
    assert after.skip_reason == "in Latin"
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert "All done" in page


def test_undo_shows_the_last_one_with_its_answer(client, ada, handed):
    client.force_login(ada)
    client.post(address(handed), form())
    page = client.post(reverse("judge_undo", args=["apollo"]), follow=True).content.decode()
    assert str(handed.uid) in page
    assert "A &gt; B &gt; C &gt; D" in page


def test_a_judgment_can_be_corrected_from_ones_history(client, ada, handed):
    client.force_login(ada)
    client.post(address(handed), form())
    page = client.get(reverse("history", args=["apollo"])).content.decode()
    assert address(handed) in page
    assert "Correct a judgment" in client.get(address(handed)).content.decode()
    client.post(address(handed), form(**{"rank-safety-A": "4"}))
    assert list(Judgment.objects.order_by("id").values_list("revision", flat=True)) == [1, 2]
    assert Judgment.objects.current().get().revision == 2


def test_nobody_else_reaches_an_assignment(client, ben, vera, rita, grace, otto, handed):
    for person in (ben, vera, rita, grace, otto):
        client.force_login(person)
        for name in ("judge_one", "judge_after"):
            assert client.get(address(handed, name)).status_code == 404
        assert client.post(address(handed), form()).status_code == 404
        for act in ("submit", "skip", "renew", "release"):
            url = reverse(f"api:judging_{act}", args=["apollo", handed.uid])
            assert client.post(url, {}, content_type="application/json").status_code == 404
    assert not Judgment.objects.exists()


def fixed(text):
    """Without what differs between any two requests: tokens and the answer's key."""
    text = re.sub(r'name="csrfmiddlewaretoken" value="[^"]*"', "", text)
    text = re.sub(r'"X-CSRFToken": "[^"]*"', "", text)
    text = re.sub(r'data-(now|lease)="[^"]*"', "", text)
    return re.sub(r'name="key" value="[^"]*"', "", text)


def test_who_wrote_what_changes_no_byte_of_page_headers_or_api(client, ada, project):
    comparison = ComparisonFactory(batch=BatchFactory(project=project), responses=0)
    for i in range(4):
        ResponseFactory(
            id=987654321 + i, comparison=comparison
        )  # Numbers that stand out in a page.
    handed = next_assignment(ada, project)
    client.force_login(ada)
    urls = [
        reverse("judge", args=["apollo"]),
        address(handed),
        reverse("api:judging_next", args=["apollo"]),
        reverse("history", args=["apollo"]),
        reverse("project", args=["apollo"]),
        "/",
    ]
    Response.objects.update(sampling={"seed": 1})

    def everything():
        seen = []
        for url in urls:
            answer = client.get(url)
            headers = {
                k: v for k, v in answer.headers.items() if k not in ("Set-Cookie", "X-Request-Id")
            }
            headers.pop("Content-Security-Policy", None)
            body = re.sub(r'"lease_until":"[^"]*"', "", fixed(answer.content.decode()))
            seen.append((url, answer.status_code, headers, body))
        return seen

    before = everything()
    for response in Response.objects.all():
        response.source, response.logprob = f"policy-{response.pk}", -float(response.pk)
        response.n_tokens, response.sampling = response.pk * 2, {"temperature": response.pk}
        response.save()
    for one, other in zip(before, everything(), strict=True):
        assert one == other
    page = client.get(urls[0]).content.decode() + client.get(urls[2]).content.decode()
    for response in handed.comparison.responses.all():
        assert str(response.uid) not in page
        assert f"policy-{response.pk}" not in page
        assert str(response.pk) not in page


def test_hostile_texts_are_inert_on_the_page(client, ada, project):
    batch = BatchFactory(project=project, name='"><script>alert(0)</script>')
    comparison = ComparisonFactory(batch=batch, responses=0)
    for text in HOSTILE[:9]:
        ResponseFactory(comparison=comparison, text=text)
    comparison.prompt.messages = [{"role": "user", "content": "<img src=x onerror=alert(1)>"}]
    comparison.prompt.save()
    client.force_login(ada)
    page = client.get(reverse("judge", args=["apollo"])).content.decode()
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "<a hx-get" not in page
    assert "<iframe" not in page


def test_a_megabyte_of_text_can_be_judged(client, ada, project):
    comparison = ComparisonFactory(batch=BatchFactory(project=project), responses=1)
    ResponseFactory(comparison=comparison, text="\u202e" + "word " * 200_000)
    client.force_login(ada)
    assert client.get(reverse("judge", args=["apollo"])).status_code == 200


def test_the_next_one_is_handed_out_before_it_is_needed(client, ada, handed):
    client.force_login(ada)
    answer = client.get(address(handed, "judge_after"))
    assert answer.status_code == 200
    assert "<html" not in answer.content.decode()
    assert Assignment.objects.filter(annotator=ada, state=State.LEASED).count() == 2


def test_the_page_keeps_drafts_renews_and_gives_back(client, ada, handed):
    client.force_login(ada)
    json_please = {"Accept": "application/json"}

    def post(**fields):
        return client.post(address(handed), form(**fields), headers=json_please).json()

    assert post(act="draft", reason="so far")["saved"]
    handed.refresh_from_db()
    assert handed.draft["reason"] == "so far"
    assert post(act="renew")["renewed"]
    assert post(act="release")["released"]
    handed.refresh_from_db()
    assert handed.state == State.EXPIRED
    assert post(act="send")["sent"]
    assert post(act="nonsense")["problem"]
    assert_counters_are_right()


def test_a_page_that_is_left_gives_back_its_own_lease_of_what_was_not_begun(client, ada, handed):
    client.force_login(ada)
    json_please = {"Accept": "application/json"}

    def lease():
        return re.search(r'data-lease="([^"]*)"', client.get(JUDGE).content.decode())[1]

    def given_back(lease):
        fields = {"act": "release", "lease": lease}
        return client.post(address(handed), fields, headers=json_please).json()["released"]

    left, loaded_anew = lease(), lease()
    assert not given_back(left), "the page that was loaded anew shows it"
    assert not given_back("nonsense")
    renewed = client.post(address(handed), {"act": "renew"}, headers=json_please).json()["lease"]
    assert not given_back(loaded_anew)
    assert given_back(renewed)
    handed.refresh_from_db()
    assert handed.state == State.EXPIRED
    client.post(address(handed), form(act="draft"), headers=json_please)
    assert not given_back(lease()), "what was begun is kept"
    handed.refresh_from_db()
    assert handed.state == State.LEASED
    assert_counters_are_right()


def test_who_signs_out_gives_back_what_was_not_begun_and_keeps_the_rest(
    client, ada, ben, project, batch
):
    client.force_login(ada)
    begun = next_assignment(ada, project)
    ahead = peek_next(ada, project, begun)
    assert next_assignment(ben, project) is None
    client.post(address(begun), form(act="draft"))
    client.post(reverse("account_logout"))
    states = {one.pk: one.state for one in Assignment.objects.all()}
    assert states[begun.pk] == State.LEASED
    assert states[ahead.pk] == State.EXPIRED
    assert next_assignment(ben, project).comparison_id == ahead.comparison_id
    assert_counters_are_right()


def test_the_api_does_what_the_page_does(client, ada, project, batch):
    client.force_login(ada)

    def call(name, *args, method="post", **body):
        url = reverse(f"api:judging_{name}", args=["apollo", *args])
        return getattr(client, method)(url, json.dumps(body), content_type="application/json")

    shown = call("next").json()
    assert [one["letter"] for one in shown["responses"]] == list("ABCD")
    assert set(shown["responses"][0]) == {"letter", "text", "is_cut_off"}
    ranks = {axis: {"A": 1, "B": 2, "C": 2, "D": 3} for axis in ("helpfulness", "safety")}
    draft = call("draft", shown["uid"], method="put", ranks=ranks)
    assert draft.json()["draft"]["ranks"] == ranks
    once = str(key())
    sent = call("submit", shown["uid"], key=once, ranks=ranks)
    assert sent.json() == call("submit", shown["uid"], key=once, ranks=ranks).json()
    other = {axis: {"A": 2, "B": 1} for axis in ranks}
    assert call("submit", shown["uid"], key=once, ranks=other).status_code == 409
    refused = call("submit", shown["uid"], key=str(key()), ranks={"charm": {"A": 1}})
    assert refused.status_code == 422
    assert "charm" in refused.json()["detail"]
    second = call("next").json()["uid"]
    assert second != shown["uid"]
    assert call("renew", second).json()["renewed"]
    assert call("skip", second, reason="no idea").status_code == 204
    assert call("next").status_code == 204
    assert call("undo").json()["uid"] == second  # The skip was later than the judgment.
    assert call("undo").json()["uid"] == shown["uid"]
    assert call("release", second).status_code == 204
    assert call("release", shown["uid"]).status_code == 204
    assert_counters_are_right()


def test_an_annotator_of_one_project_goes_straight_to_judging(client, ada, grace, batch):
    client.force_login(ada)
    assert client.get("/")["Location"] == "/projects/apollo/judge/"
    client.force_login(grace)
    page = client.get("/").content.decode()
    assert "Judge next: 2 waiting" in page


def test_somebody_in_no_project_is_told_what_to_do(client, ada):
    Membership.objects.all().delete()
    client.force_login(ada)
    assert "Ask a project" in client.get("/").content.decode()


def test_changed_guidelines_are_a_new_version(client, grace, project):
    client.force_login(grace)
    fields = {"act": "save", "name": "Apollo", "description": "", "guidelines": "Be kind."}
    fields |= {"overlap": 2, "responses_per_comparison": 4, "lease_minutes": 30}
    url = reverse("project_settings", args=["apollo"])
    client.post(url, fields)
    client.post(url, fields)
    project.refresh_from_db()
    assert (project.guideline_version, project.overlap) == (2, 2)
    assert client.post(url, fields | {"responses_per_comparison": 12}).status_code == 422
    assert Event.objects.filter(verb="changed project").count() == 1


def test_people_are_added_given_roles_and_removed(client, grace, ada, otto, project):
    client.force_login(grace)
    url = reverse("people", args=["apollo"])
    client.post(url, {"act": "add", "who": "ada", "role": "reviewer"})
    assert project.memberships.get(user=ada).role == "reviewer"
    assert client.post(url, {"act": "add", "who": "", "role": "admin"}).status_code == 422
    mine = project.memberships.get(user=grace)
    client.post(url, {"act": "remove", "membership": mine.pk})
    assert project.memberships.filter(user=grace).exists()
    client.post(url, {"act": "remove", "membership": project.memberships.get(user=ada).pk})
    assert not project.memberships.filter(user=ada).exists()
    foreign = otto.memberships.get()
    assert client.post(url, {"act": "remove", "membership": foreign.pk}).status_code == 404


def test_whoever_saw_what_is_gold_still_knows_after_having_been_away(
    client, grace, ada, ben, project
):
    client.force_login(grace)
    url = reverse("people", args=[project.slug])
    for who, role in [(ada, "reviewer"), (ben, "annotator")]:
        client.post(url, {"act": "add", "who": who.username, "role": role})
        mine = project.memberships.get(user=who)
        client.post(url, {"act": "remove", "membership": mine.pk})
        client.post(url, {"act": "add", "who": who.username, "role": "annotator"})
    assert project.memberships.get(user=ada).knows_gold
    assert not project.memberships.get(user=ben).knows_gold


def test_removing_somebody_asks_first_and_says_what_is_lost(client, grace, ada, project):
    client.force_login(grace)
    page = client.get("/projects/apollo/people/").content.decode()
    asked = re.findall(r'<details class="confirm".*?</details>', page, re.DOTALL)
    assert len(asked) == page.count('value="remove"') == project.memberships.count()
    [of_ada] = [one for one in asked if "Yes, remove ada" in one]
    assert "Judgments of ada are kept" in of_ada
    assert "are deleted" in of_ada


def test_only_admins_and_staff_start_projects(client, ada, grace):
    url = reverse("project_new")
    fields = {"name": "Voskhod", "description": "", "guidelines": "", "overlap": 1}
    fields |= {"responses_per_comparison": 3}
    client.force_login(ada)
    assert client.post(url, fields).status_code == 404
    client.force_login(grace)
    assert client.post(url, fields).status_code == 302
    made = Project.objects.get(name="Voskhod", slug__startswith="voskhod-")
    assert made.memberships.get().user == grace
    # A second one of the name tells nobody that there is a first: it has an address of its own.
    assert client.post(url, fields).status_code == 302
    assert Project.objects.filter(name="Voskhod").values("slug").distinct().count() == 2
    assert "letters or digits" in client.post(url, fields | {"name": "New"}).content.decode()


def test_shortcuts_can_be_switched_off_and_back_only_leads_here(client, ada):
    client.force_login(ada)
    answer = client.post(reverse("shortcuts"), {"back": "https://evil.example/"})
    assert answer["Location"] == "/"
    ada.refresh_from_db()
    assert not ada.shortcuts_enabled


def test_a_published_protocol_is_chosen_for_a_project(client, grace, project):
    client.force_login(grace)
    url = reverse("project_settings", args=["apollo"])
    page = client.get(url).content.decode()
    assert "significantly, simply, slightly or negligibly better" in page
    fields = {"act": "save", "name": "Apollo", "overlap": 1, "lease_minutes": 30}
    fields |= {"responses_per_comparison": 4, "asks": "llama2"}
    assert client.post(url, fields).status_code == 302
    project.refresh_from_db()
    assert (project.interface, project.axis_keys) == ("pair", ["helpfulness"])
    assert project.responses_per_comparison == 2
    assert len(project.effective_protocol.scale.levels) == 4
    # What is asked stays with a batch; axes stay with the project once it has one.
    BatchFactory(project=project)
    refused = client.post(url, fields | {"asks": "safe-rlhf"})
    assert refused.status_code == 422
    assert "Start a new project for it" in refused.content.decode()
    project.refresh_from_db()
    assert project.effective_protocol.preset == "llama2"


def test_a_protocol_is_changed_as_data_and_a_senseless_one_refused(client, grace, project):
    client.force_login(grace)
    url = reverse("project_settings", args=["apollo"])
    fields = {"act": "save", "name": "Apollo", "overlap": 1, "lease_minutes": 30}
    fields |= {"responses_per_comparison": 4, "asks": "rank"}
    for wrong, says in [("{", "Line 1 is not JSON"), ('{"charm": 1}', "has no part “charm”")]:
        answer = client.post(url, fields | {"details": wrong})
        assert answer.status_code == 422
        assert says in answer.content.decode()
    mine = json.dumps({"reason": "required", "reason_min": 12})
    assert client.post(url, fields | {"details": mine}).status_code == 302
    project.refresh_from_db()
    assert (project.interface, project.effective_protocol.reason_min) == ("rank", 12)
    assert "with custom changes" in client.get(url).content.decode()


def test_a_new_project_begins_with_the_protocol_it_was_given(client, grace):
    client.force_login(grace)
    fields = {"name": "Voskhod", "overlap": 1, "responses_per_comparison": 4, "asks": "safe-rlhf"}
    assert client.post(reverse("project_new"), fields).status_code == 302
    made = Project.objects.get(name="Voskhod", slug__startswith="voskhod-")
    assert made.axis_keys == ["helpfulness", "safety"]
    assert len(made.effective_protocol.harms) == 14
    assert made.responses_per_comparison == 2


def test_a_conflict_shows_in_ones_history(client, ada, handed):
    client.force_login(ada)
    client.post(address(handed), form(**{"flag-A": "unsafe", "harm-A": "theft"}))
    assert Judgment.objects.get().needs_review
    assert "sent to review" in client.get(reverse("history", args=["apollo"])).content.decode()


def test_a_ruling_is_neither_shown_nor_changed_on_the_judging_pages(client, project, ada, vera):
    judged(project, by=ada, ranks=(1, 2))
    comparison = Comparison.objects.get()
    ruling = ruling_assignment(comparison, vera)
    ranks = {str(pk): place for place, pk in enumerate(ruling.shown_order, start=1)}
    answer = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
    submit_judgment(ruling, by=vera, answer=answer, key=key())
    client.force_login(vera)
    assert str(ruling.uid) not in client.get(f"{JUDGE}history/").content.decode()
    assert client.post(f"{JUDGE}undo/", {"uid": str(ruling.uid)}).status_code == 404
    assert client.get(f"{JUDGE}{ruling.uid}/").status_code == 404
    api = f"/api/v1/projects/apollo/judging/{ruling.uid}/release/"
    assert client.post(api).status_code == 404
    ruling.refresh_from_db()
    assert ruling.judgment is not None


def test_a_strength_that_the_scale_does_not_have_breaks_no_page(client, project, ada):
    preset = PRESETS["pair"]
    Project.objects.filter(pk=project.pk).update(axes=[dict(axis) for axis in preset.axes])
    batch = BatchFactory(project=project, interface="pair", protocol=preset.protocol.as_json())
    ComparisonFactory(batch=batch, responses=2)
    project.refresh_from_db()
    handed = next_assignment(ada, project)
    ranks = {"helpfulness": {"A": 1, "B": 2}}
    save_draft(handed, {"ranks": ranks, "strength": {"helpfulness": 9}})
    client.force_login(ada)
    assert client.get(address(handed)).status_code == 200


def test_of_many_batches_the_page_says_how_many_there_are_and_leads_to_all(client, project, grace):
    for number in range(23):
        BatchFactory(project=project, name=f"Week {number:02d}")
    client.force_login(grace)
    page = client.get("/projects/apollo/").content.decode()
    assert "Week 22" in page
    assert "Week 02" not in page
    assert '<a href="?batches=all#batches-section">All 23 batches</a>' in page
    page = client.get("/projects/apollo/?batches=all").content.decode()
    assert "Week 00" in page
    assert "All 23" not in page
    assert (
        'hx-get="/projects/apollo/?batches=all"' in page
    )  # It stays so when it is kept up to date.


def test_an_older_batch_that_is_open_is_kept_up_to_date_under_a_closed_one(client, project, grace):
    BatchFactory(project=project, name="Old and open")
    BatchFactory(project=project, name="New and closed", state="closed")
    client.force_login(grace)
    assert 'hx-trigger="every 10s"' in client.get("/projects/apollo/").content.decode()
