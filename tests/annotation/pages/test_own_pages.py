"""How one person works: language, keys, harmful material, breaks; and what they said before."""

import pytest
from django.urls import reverse

from annotation.data.preferences import preference_rows
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment, peek_next, waiting
from annotation.judge.submitting import submit_judgment
from annotation.models import Assignment, User
from tests.factories import BatchFactory, ComparisonFactory, PromptFactory, key

pytestmark = pytest.mark.django_db


def say(client, **changes):
    given = {"language": "", "shortcuts_enabled": "on", "harmful_material": "warn"}
    return client.post(reverse("preferences"), given | {"break_minutes": 45} | changes, follow=True)


@pytest.fixture
def harmful(project):
    batch = BatchFactory(project=project, name="Round 1")
    prompt = PromptFactory(project=project, risk="harmful")
    return ComparisonFactory(batch=batch, prompt=prompt)


def test_preferences_are_kept_with_the_person(client, ada, ben):
    client.force_login(ada)
    say(client, language="de", harmful_material="avoid", break_minutes=30, shortcuts_enabled="")
    ada.refresh_from_db()
    ben.refresh_from_db()
    assert (ada.language, ada.harmful_material, ada.break_minutes) == ("de", "avoid", 30)
    assert not ada.shortcuts_enabled
    assert (ben.language, ben.harmful_material, ben.break_minutes) == ("", "warn", 45)


@pytest.mark.parametrize(
    "wrong", [{"break_minutes": 5}, {"language": "xx"}, {"harmful_material": "more"}]
)
def test_what_makes_no_sense_is_refused_and_nothing_is_kept(client, ada, wrong):
    client.force_login(ada)
    answer = client.post(
        reverse("preferences"),
        {"language": "", "harmful_material": "show", "break_minutes": 30} | wrong,
    )
    assert answer.status_code == 422
    ada.refresh_from_db()
    assert ada.harmful_material == "warn"


def test_a_chosen_language_counts_more_than_the_browsers(client, ada):
    client.force_login(ada)
    home = reverse("preferences")
    assert '<html lang="de"' in client.get(home, HTTP_ACCEPT_LANGUAGE="de").content.decode()
    assert '<html lang="en"' in client.get(home, HTTP_ACCEPT_LANGUAGE="fr").content.decode()
    say(client, language="de")
    assert '<html lang="de"' in client.get(home, HTTP_ACCEPT_LANGUAGE="en").content.decode()
    client.logout()
    login = client.get(reverse("account_login"), HTTP_ACCEPT_LANGUAGE="en")
    assert '<html lang="en"' in login.content.decode(), "one person's choice stays theirs"


def test_who_wants_no_harmful_material_is_handed_none(project, ada, ben, harmful):
    fine = ComparisonFactory(batch=harmful.batch)
    User.objects.filter(pk=ada.pk).update(harmful_material="avoid")
    ada.refresh_from_db()
    assert waiting(ada, project) == 1
    assert waiting(ben, project) == 2
    handed = next_assignment(ada, project)
    assert handed.comparison == fine
    assert peek_next(ada, project, handed) is None
    assert next_assignment(ben, project).comparison == harmful


def test_what_one_holds_when_one_opts_out_is_given_back(client, project, ada, ben, harmful):
    assert next_assignment(ada, project).comparison == harmful
    client.force_login(ada)
    say(client, harmful_material="avoid")
    ada.refresh_from_db()
    assert Assignment.objects.get(annotator=ada).state == Assignment.State.EXPIRED
    assert next_assignment(ada, project) is None, "what was begun does not come back either"
    assert next_assignment(ben, project).comparison == harmful


def test_harmful_material_is_covered_unless_one_wants_it_shown(client, project, ada, harmful):
    client.force_login(ada)
    url = reverse("judge", args=["apollo"])
    page = client.get(url).content.decode()
    assert 'class="cover"' in page
    assert "Uncover harmful content." in page, "among the keys"
    say(client, harmful_material="show")
    page = client.get(url).content.decode()
    assert 'class="cover"' not in page
    assert "Uncover" not in page
    say(client)
    harmful.prompt.risk = "harmless"
    harmful.prompt.save()
    assert 'class="cover"' not in client.get(url).content.decode()


def test_a_correction_shows_what_was_said_before_and_only_the_latest_counts(client, project, ada):
    ComparisonFactory(batch=BatchFactory(project=project))
    handed = next_assignment(ada, project)
    ids = [str(pk) for pk in handed.shown_order]

    def answer(*ranks):
        of = dict(zip(ids, ranks, strict=True))
        return Answer(ranks=dict.fromkeys(project.axis_keys, of))

    submit_judgment(handed, by=handed.annotator, answer=answer(1, 2, 3, 4), key=key())
    submit_judgment(handed, by=handed.annotator, answer=answer(4, 3, 2, 1), key=key())
    submit_judgment(handed, by=handed.annotator, answer=answer(4, 3, 1, 2), key=key())
    client.force_login(ada)
    page = client.get(reverse("history", args=["apollo"])).content.decode()
    assert "revision 3" in page
    assert "2 earlier revisions" in page
    assert page.index("C &gt; D &gt; B &gt; A") < page.index("<s>D &gt; C &gt; B &gt; A</s>")
    assert page.index("<s>D &gt; C &gt; B &gt; A</s>") < page.index("<s>A &gt; B &gt; C &gt; D</s>")
    rows = list(preference_rows(project, only_trainable=False))
    assert len(rows) == 1, "a correction counts in the place of what it corrects"
    assert str(rows[0]).count("4") >= 1


def test_a_page_of_history_costs_few_queries(client, project, ada, django_assert_max_num_queries):
    batch = BatchFactory(project=project)
    for _ in range(12):
        ComparisonFactory(batch=batch)
        handed = next_assignment(ada, project)
        ranks = {str(pk): n for n, pk in enumerate(handed.shown_order, start=1)}
        given = Answer(ranks=dict.fromkeys(project.axis_keys, ranks))
        submit_judgment(handed, by=handed.annotator, answer=given, key=key())
    client.force_login(ada)
    with django_assert_max_num_queries(14):
        client.get(reverse("history", args=["apollo"]))
