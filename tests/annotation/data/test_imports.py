"""Files that other people made: all of a file is written, or nothing of it."""

import io
import json
import uuid

import pytest
from django.core.management import CommandError, call_command

from annotation.data.imports import import_comparisons, import_prompts
from annotation.data.preferences import pairs, preference_rows
from annotation.data.snapshots import freeze_snapshot
from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Judgment,
    Prompt,
    Response,
    Source,
    User,
    content_hash,
)
from annotation.quality import review
from annotation.statistics.agreement import agreement
from tests.factories import ProjectFactory

pytestmark = pytest.mark.django_db

SOURCE = {"name": "Written for the tests", "licence": "CC0-1.0", "url": ""}
AXES = ["helpfulness", "safety"]


def lines(*rows):
    return io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())


def add(project, file, rita, **options):
    return import_prompts(project, file, source=SOURCE, by=rita, sign_off=True, **options)


def take(project, file, rita, axis="helpfulness", **options):
    return import_comparisons(
        project, file, axis=axis, source=SOURCE, by=rita, sign_off=True, **options
    )


# --- All of it or nothing --------------------------------------------------------------------------------


def test_prompts_are_written_with_source_split_and_hash(project, rita):
    report = add(project, lines({"prompt": "A?", "category": "x", "id": 7}, {"prompt": "B?"}), rita)
    assert (report.n_imported, report.n_duplicates) == (2, 0)
    prompt = Prompt.objects.get(external_id="7")
    assert (prompt.category, prompt.split) == ("x", Prompt.split_for(prompt.sha256))
    assert prompt.sha256 == content_hash(prompt.messages)
    assert prompt.source.is_signed_off
    assert prompt.source.signed_off_by == rita


def test_one_bad_line_keeps_everything_out(project, rita):
    file = io.BytesIO(b'{"prompt": "fine"}\n' * 3 + b"{\n")
    report = add(project, file, rita)
    assert not report.ok
    assert not Prompt.objects.exists()
    assert not Source.objects.exists()
    pair = {"prompt": "Q", "chosen": "a", "rejected": "b"}
    assert not take(project, lines(pair, {"prompt": "Q"}), rita).ok
    for model in (Prompt, Source, Batch, Comparison, Response, Assignment, Judgment):
        assert not model.objects.exists()


def test_a_failure_while_writing_leaves_nothing(project, rita, monkeypatch):
    monkeypatch.setattr(Judgment.objects, "bulk_create", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        take(project, lines({"prompt": "Q", "chosen": "a", "rejected": "b"}), rita)
    for model in (Prompt, Source, Batch, Comparison, Response, Assignment):
        assert not model.objects.exists()


def test_a_source_without_a_name_is_refused(project, rita):
    report = import_prompts(project, lines({"prompt": "A"}), source={"name": " "}, by=rita)
    assert "Name the source" in str(report.problems[0])
    bare = import_prompts(
        project, lines({"prompt": "A"}), source={"name": "x"}, by=rita, sign_off=True
    )
    assert "Name the license" in str(bare.problems[0])
    odd = {"name": "x", "url": "javascript:alert(1)"}
    report = import_prompts(project, lines({"prompt": "A"}), source=odd, by=rita)
    assert "https://" in str(report.problems[0])


def test_the_same_text_is_one_prompt_whatever_file_it_came_in(project, rita):
    assert add(project, lines({"prompt": "A?"}, {"prompt": "A?"}), rita).n_duplicates == 1
    before = Prompt.objects.get()
    again = add(project, lines({"prompt": "A?", "split": "heldout"}), rita)
    assert (again.n_imported, again.n_duplicates, again.source) == (0, 1, None)
    assert Prompt.objects.get().split == before.split
    assert Source.objects.count() == 1


def test_a_row_may_name_its_split(project, rita):
    add(project, lines({"prompt": "A?", "split": "test"}, {"prompt": "B?", "split": "train"}), rita)
    assert [p.split for p in Prompt.objects.order_by("pk")] == ["heldout", "train"]


def test_thousands_of_prompts_go_in_whole(project, rita):
    report = add(project, lines(*[{"prompt": f"Question {n}?"} for n in range(3000)]), rita)
    assert report.n_imported == Prompt.objects.count() == 3000
    share = Prompt.objects.filter(split="train").count() / 3000
    assert 0.77 < share < 0.83


# --- Comparisons ---------------------------------------------------------------------------------------------


HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: Gladly.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Help?\n\nAssistant: No.",
}
TRL = {
    "prompt": [{"role": "user", "content": "Help?"}],
    "chosen": [{"role": "assistant", "content": "Gladly."}],
    "rejected": [{"role": "assistant", "content": "No."}],
}


def best_and_worst(project, axis="helpfulness"):
    return [
        (
            pair["prompt"][-1]["content"],
            pair["chosen"][0]["content"],
            pair["rejected"][0]["content"],
        )
        for pair in pairs(preference_rows(project), axis)
    ]


@pytest.mark.parametrize(
    "row",
    [
        HH,
        TRL,
        {"prompt": "Help?", "chosen": "Gladly.", "rejected": "No."},
        {"prompt": "Human: Help?\n\nAssistant:", "chosen": "Gladly.", "rejected": "No."},
        {
            "chosen": [*TRL["prompt"], *TRL["chosen"]],
            "rejected": [*TRL["prompt"], *TRL["rejected"]],
        },
        {"messages": TRL["prompt"], "responses": ["No.", "Gladly."], "ranks": [2, 1]},
    ],
)
def test_each_form_of_pair_becomes_a_judged_comparison(project, rita, row):
    report = take(project, lines(row), rita)
    assert report.n_imported == 1, report.problems
    assert best_and_worst(project) == [("Help?", "Gladly.", "No.")]


def test_an_imported_batch_looks_as_judging_would_have_left_it(project, rita):
    [batch] = take(project, lines(TRL), rita, axis="safety").batches
    assert (batch.state, batch.is_imported) == (Batch.State.CLOSED, True)
    comparison = batch.comparisons.get()
    assert (comparison.needed, comparison.taken, comparison.judged) == (1, 1, 1)
    assert not comparison.is_free
    assignment = comparison.assignments.get()
    assert assignment.state == Assignment.State.JUDGED
    assert assignment.judgment.assignment == assignment
    assert sorted(assignment.shown_order) == sorted(r.pk for r in comparison.responses.all())
    assert set(assignment.judgment.ranks) == {"safety"}
    assert not assignment.annotator.is_active
    assert not assignment.annotator.has_usable_password()
    [row] = preference_rows(project)
    assert row["annotator"].startswith("imported-")
    assert row["ranks"]["helpfulness"] == [None, None]


def test_the_better_answer_is_not_always_stored_first(project, rita):
    rows = [{"prompt": f"Q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(60)]
    take(project, lines(*rows), rita)
    first = [row["ranks"]["helpfulness"][0] == 1 for row in preference_rows(project)]
    assert 15 < sum(first) < 45


def test_the_same_file_twice_adds_nothing(project, rita):
    other = {**HH, "rejected": HH["rejected"] + " Never."}
    assert take(project, lines(HH, HH, other), rita).n_duplicates == 1
    before = Judgment.objects.count()
    again = take(project, lines(HH, other), rita)
    assert (again.n_imported, again.n_duplicates) == (0, 2)
    assert Judgment.objects.count() == before == 2


def test_a_prompt_compared_twice_goes_to_a_second_batch(project, rita):
    other = {**TRL, "rejected": [{"role": "assistant", "content": "Never."}]}
    report = take(project, lines(TRL, other), rita)
    assert [batch.comparisons.count() for batch in report.batches] == [1, 1]
    assert Prompt.objects.count() == 1
    assert len(best_and_worst(project)) == 2


def tree(*replies):
    return {
        "message_tree_id": "t",
        "prompt": {"text": "Help?", "role": "prompter", "replies": list(replies)},
    }


def reply(text, rank, *replies, **more):
    return {"text": text, "role": "assistant", "rank": rank, "replies": list(replies), **more}


def test_a_trees_ranked_replies_become_k_way_comparisons(project, rita):
    deeper = {
        "text": "More?",
        "role": "prompter",
        "rank": 0,
        "replies": [reply("x", 1), reply("y", 0)],
    }
    row = tree(
        reply("second", 1),
        reply("best", 0, deeper),
        reply("third", 2),
        reply("unranked", None),
        reply("gone", 0, deleted=True),
    )
    report = take(project, lines(row), rita)
    assert report.n_imported == 2
    assert sorted(best_and_worst(project)) == [
        ("Help?", "best", "second"),
        ("Help?", "best", "third"),
        ("Help?", "second", "third"),
        ("More?", "y", "x"),
    ]
    multi = Prompt.objects.get(messages__2__content="More?")
    assert [m["role"] for m in multi.messages] == ["user", "assistant", "user"]
    assert sum(report.notes.values()) == 1


def test_a_snapshots_own_rows_can_be_taken_in_again(project, rita):
    take(project, lines(tree(reply("a", 0), reply("b", 1), reply("c", 1))), rita)
    rows = list(preference_rows(project))
    other = ProjectFactory(slug="gemini")
    report = take(other, lines(*rows), rita)
    assert report.format == "ranking"
    assert sorted(best_and_worst(other)) == sorted(best_and_worst(project))


def test_an_axis_that_the_project_does_not_have_is_refused(project, rita):
    report = take(project, lines(TRL), rita, axis="wit")
    assert "no axis 'wit'" in str(report.problems[0])
    rows = {"messages": TRL["prompt"], "responses": ["a", "b"], "ranks": {"wit": [1, 2]}}
    assert "no axis 'wit'" in str(take(project, lines(rows), rita).problems[0])


def test_unsigned_comparisons_do_not_reach_training_through_a_signed_off_prompt(project, rita):
    add(project, lines({"prompt": "Help?", "split": "train"}), rita)
    import_comparisons(project, lines(TRL), axis="safety", source={"name": "x"}, by=rita)
    assert list(preference_rows(project)) == []


def test_ranks_are_stored_as_judging_stores_them_however_large_they_are(project, rita):
    row = {"messages": TRL["prompt"], "responses": list("abcd"), "ranks": [7, 10, 10**30, None]}
    assert take(project, lines(row), rita).ok
    [told] = preference_rows(project)
    by_text = dict(zip(told["responses"], told["ranks"]["helpfulness"], strict=True))
    assert by_text == {"a": 1, "b": 2, "c": 3, "d": None}
    freeze_snapshot(project, by=rita)


def test_what_a_top_k_ranking_left_out_stays_behind_when_it_is_taken_in_again(project, rita):
    row = {"messages": TRL["prompt"], "responses": list("abc"), "ranks": [1, None, None]}
    assert take(project, lines(row), rita).n_imported == 0, "one alone says nothing"
    assert take(project, lines(row | {"unranked": "below"}), rita).n_imported == 1
    rows = list(preference_rows(project))
    assert sorted(p["rejected"][0]["content"] for p in pairs(rows, "helpfulness")) == ["b", "c"]


# --- Votes of several people ------------------------------------------------------------------------


def vote(annotator, *ranks, **more):
    return {
        "messages": TRL["prompt"],
        "responses": ["An oak.", "A rock."],
        "annotator": annotator,
        "ranks": {"helpfulness": list(ranks)},
    } | more


def test_votes_of_several_annotators_are_judgments_of_one_comparison(project, rita):
    rows = [vote("aa", 1, 2), vote("bb", 1, 2), vote("cc", 2, 1), vote("aa", 1, 2)]
    report = take(project, lines(*rows), rita)
    assert (report.n_imported, report.n_duplicates) == (3, 1)
    comparison = Comparison.objects.get()
    assert (comparison.needed, comparison.taken, comparison.judged) == (3, 3, 3)
    exported = list(preference_rows(project))
    assert len({row["annotator"] for row in exported}) == 3
    assert all(row["annotator"].startswith("imported-") for row in exported)
    oak = exported[0]["responses"].index("An oak.")
    assert sorted(row["ranks"]["helpfulness"][oak] for row in exported) == [1, 1, 2]
    assert not User.objects.filter(username__contains="aa").exclude(username="rita").exists()
    again = take(project, lines(*rows), rita)
    assert (again.n_imported, again.n_duplicates) == (0, 4)


def test_a_second_vote_of_one_annotator_is_kept_in_a_second_batch(project, rita):
    rows = [vote("aa", 1, 2, judgment_id="1"), vote("aa", 2, 1, judgment_id="2")]
    report = take(project, lines(*rows, vote("bb", 1, 2)), rita)
    assert [batch.comparisons.get().judged for batch in report.batches] == [2, 1]


def test_agreement_is_the_same_after_a_round_trip(project, rita):
    rows = []
    for number in range(8):
        responses = [f"{number} a", f"{number} b", f"{number} c"]
        for annotator, ranks in (("aa", [1, 2, 3]), ("bb", [1, 3, 2]), ("cc", [2, 1, 3])):
            rank_lists = ranks if number % 3 else ranks[::-1]
            messages = [{"role": "user", "content": f"Question {number}?"}]
            row = vote(annotator, *rank_lists, messages=messages, responses=responses)
            rows.append(row | {"prompt_id": f"q{number}"})
    take(project, lines(*rows), rita)
    first = list(preference_rows(project))
    other = ProjectFactory(slug="gemini")
    take(other, lines(*first), rita)
    second = list(preference_rows(other))
    assert len(second) == 24
    figures = [agreement(each)["helpfulness"] for each in (rows, first, second)]
    assert len({(f["alpha"], f["pairwise"], f["tau"], f["n_annotators"]) for f in figures}) == 1


def test_what_a_vote_says_in_addition_to_its_ranks_is_kept(project, rita):
    row = vote(
        "aa",
        *(1, 2),
        strength={"helpfulness": 3, "safety": None},
        margin={"helpfulness": 1.0, "safety": None},
        reason="because it is one",
        all_bad=["helpfulness"],
        weight=0.5,
    )
    report = take(project, lines(row), rita)
    assert report.remarks == ["columns not read: weight (1 row)"]
    [exported] = preference_rows(project)
    assert exported["strength"] == {"helpfulness": 3, "safety": None}
    assert exported["margin"] == {"helpfulness": 1.0, "safety": None}
    assert (exported["reason"], exported["all_bad"]) == ("because it is one", ["helpfulness"])


def test_a_pairs_annotator_and_strength_are_kept(project, rita):
    rows = [TRL | {"annotator": name, "strength": 2, "margin": 0.5} for name in ("aa", "bb")]
    assert take(project, lines(*rows), rita).n_imported == 2
    exported = list(preference_rows(project))
    assert len({row["annotator"] for row in exported}) == 2
    assert [row["strength"]["helpfulness"] for row in exported] == [2, 2]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ({"strength": {"helpfulness": "much"}}, "strength is not a number"),
        ({"strength": {"helpfulness": 1.5}}, "strength is not a whole number"),
        ({"strength": {"wit": 1}}, "no axis 'wit'"),
        ({"all_bad": "helpfulness"}, "all_bad is not a list"),
        ({"all_bad": ["wit"]}, "no axis 'wit'"),
        ({"reason": 3}, "reason is not text"),
    ],
)
def test_a_wrong_field_of_a_vote_is_refused(project, rita, field, reason):
    report = take(project, lines(vote("aa", 1, 2, **field)), rita)
    assert reason in report.problems[0].reason


def test_a_reviewer_can_adopt_an_imported_vote_that_has_a_strength(project, rita, vera):
    row = vote("aa", 1, 2, strength={"helpfulness": 3}, all_bad=["helpfulness"])
    row["ranks"]["safety"] = [1, 1]
    take(project, lines(row), rita)
    case = review.ask_for_review(Comparison.objects.get(), vera)
    answer = review.as_answer(review.votes_on(case.comparison)[0])
    review.decide(case, vera, answer=answer, ground="facts", key=uuid.uuid4())
    case.refresh_from_db()
    assert case.state == "decided"


# --- The commands ------------------------------------------------------------------------------------------------


def test_the_commands_import_and_tell_what_is_wrong(project, rita, tmp_path, capsys):
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_text('{"prompt": "Why?"}\n')
    bad.write_text("{\n")
    options = {"source": "x", "licence": "MIT", "by": "rita", "sign_off": True}
    call_command("import_prompts", "apollo", str(good), **options)
    assert "Imported 1 prompts" in capsys.readouterr().out
    with pytest.raises(CommandError, match="Nothing was imported"):
        call_command("import_prompts", "apollo", str(bad), **options)
    assert "Line 1: not valid JSON" in capsys.readouterr().err
    with pytest.raises(CommandError, match="no project"):
        call_command("import_prompts", "mir", str(good), **options)
    with pytest.raises(CommandError, match="needs --by"):
        call_command("import_prompts", "apollo", str(good), source="x", sign_off=True)
    good.write_text(json.dumps(TRL))
    call_command("import_comparisons", "apollo", str(good), axis="safety", **options)
    assert "Imported 1 comparisons" in capsys.readouterr().out
