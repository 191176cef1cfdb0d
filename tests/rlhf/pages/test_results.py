"""The result of a round: at its head, in the list of rounds, and beside other rounds."""

import re

import pytest
from django.urls import reverse

from rlhf import rounds
from rlhf.models import Score
from tests.rlhf.factories import CONFIG, new_round
from tests.rlhf.pages.browsing import page, text_of

pytestmark = pytest.mark.django_db


def test_a_round_opens_with_its_figures_their_intervals_and_what_they_mean(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "round", project.slug, 1))
    strip = body.split('class="result-strip"')[1].split("</dl>")[0]
    for figure in (
        '<b>59 %</b></a></dd><dd class="interval">[53, 65 %], n',  # 0.5 + 0.74 / 8
        "clearly preferred",
        '<b>0.79</b></a></dd><dd class="interval">[0.75, 0.83], n',
        "+0.24 from 0.55",
        "<b>7.50</b><small>nats</small>",
        "+24 % from 21",
        '<span class="verdict-word ">longer</span>',
    ):
        assert figure in strip.replace("\N{NO-BREAK SPACE}", " "), figure
    assert body.index("result-strip") < body.index('aria-label="Stages"'), "before the stages"
    assert "rubric (simulated); temperature 1" in body
    running = text_of(page(client, "round", project.slug, 3))
    assert "result-strip" not in running, "no row of dashes before the evaluation"


def test_a_worse_figure_says_worse_and_a_doubtful_one_claims_nothing(
    client, mission, project, rita
):
    second = mission["rounds"][2]
    own = Score.objects.filter(round=second, checkpoint=second.policy, judge="gold")
    own.filter(metric="safety").update(value=0.3, low=0.25, high=0.35)
    own.filter(metric="win_rate_vs_previous").update(value=0.52, low=0.46, high=0.58)
    client.force_login(rita)
    strip = text_of(page(client, "round", project.slug, 2)).split("result-strip")[1]
    strip = strip.split("</dl>")[0]
    assert '<span class="verdict-word no-go">worse</span>' in strip
    assert '<span class="verdict-word ">not clearly preferred</span>' in strip
    assert (
        '<span class="verdict-word ">no clear change</span>' in strip
    )  # helpfulness: +0.05 ± 0.05


def test_the_verdict_keeps_its_evidence_whatever_happens_to_the_scores(
    client, measured_round, grace
):
    rounds.give_verdict(measured_round, "refused", "It flatters <people>.", grace)
    Score.objects.filter(round=measured_round).update(value=0.01, low=0.0, high=0.02)
    client.force_login(grace)
    slug = measured_round.project.slug
    body = text_of(page(client, "round", slug, 1, stage="verdict"))
    assert "The gate proposed to" in body
    assert "against the previous policy [53%, 65%] (n=150)" in body
    assert "It flatters &lt;people&gt;." in body
    assert "by grace" in body
    assert "Judge: The rubric (simulated); temperature 1;" in body
    elsewhere = text_of(page(client, "round", slug, 1, stage="evaluate"))
    assert "Rejected" in elsewhere
    assert "What it rests on" in elsewhere


def _order(body):
    return re.findall(r'<tr id="round-(\d+)"', body)


def test_the_list_of_rounds_has_the_same_figures_and_is_sorted_by_any(
    client, mission, project, rita
):
    client.force_login(rita)
    body = text_of(page(client, "rounds", project.slug))
    assert _order(body) == ["3", "2", "1", "0"]
    assert "[0.75, 0.83], n" in body
    by_safety = text_of(page(client, "rounds", project.slug, sort="safety", order="ascending"))
    assert _order(by_safety) == ["0", "1", "2", "3"], "a round without the figure comes last"
    assert 'aria-sort="ascending"' in by_safety
    by_length = text_of(page(client, "rounds", project.slug, sort="mean_length"))
    assert _order(by_length) == ["2", "1", "0", "3"]
    odd = page(client, "rounds", project.slug, sort="'; drop", order="<b>")
    assert _order(text_of(odd)) == ["3", "2", "1", "0"]


def test_any_rounds_stand_side_by_side_with_only_the_settings_that_differ(
    client, mission, project, rita, ada, otto
):
    client.force_login(rita)
    address = reverse("compare_rounds", args=[project.slug])
    body = text_of(client.get(f"{address}?round=1&round=2"))
    assert "ppo.steps" in body
    assert '<td class="value" data-label="Round 1">13</td>' in body
    assert "ppo.kl_weight" not in body, "the same in both"
    assert "[0.75, 0.83], n" in body
    rows = client.get(reverse("compared_metrics", args=[project.slug]) + "?round=1&round=2").json()
    assert rows["rows"][0].keys() >= {"step", "1.kl", "2.kl", "1.reward"}
    assert len(rows["rows"]) == 14
    assert rows["running"] is False
    base_round = mission["base_round"]
    base_round.config = {name: CONFIG[name] for name in ("round", "evaluate")}
    base_round.save()
    with_base = text_of(client.get(f"{address}?round=0&round=1&round=x&round=99"))
    assert "ppo.steps" not in with_base, "a round without PPO has no other steps of it"
    assert "Choose at least two rounds" in text_of(client.get(f"{address}?round=1"))
    for number in range(4, 9):
        new_round(project, number, config=CONFIG)
    many = text_of(client.get(f"{address}?{'&'.join(f'round={n}' for n in range(1, 9))}"))
    assert "At most 6 rounds fit side by side; these are left out: Round 7, Round 8." in many
    for person in (ada, otto):
        client.force_login(person)
        assert client.get(f"{address}?round=1&round=2").status_code == 404
