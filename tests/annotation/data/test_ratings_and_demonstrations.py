import json

import pyarrow.parquet as pq
import pytest
from django.urls import reverse

from annotation.data.preferences import pairs, preference_rows
from annotation.data.ratings_and_demonstrations import response_rows
from annotation.data.snapshot_files import SnapshotError, snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.data.verification import verify
from annotation.judge.answers import Answer
from annotation.judge.assignment import next_assignment
from annotation.judge.submitting import submit_judgment, undo_last
from annotation.projects.batches import ResponseText, add_comparisons, create_batch, open_batch
from annotation.protocols import PRESETS
from tests.factories import PromptFactory, SourceFactory, key


@pytest.fixture
def ask(project, ada, grace):
    """ask(preset, texts, **prompt): what ada is handed in a new open batch under the preset."""

    def act(preset, texts=("First.", "Second."), **prompt):
        chosen = PRESETS[preset]
        project.interface, project.protocol = chosen.interface, chosen.protocol.as_json()
        project.axes = [dict(axis) for axis in chosen.axes]
        project.save()
        batch = create_batch(project, preset, by=grace)
        responses = [ResponseText(text, "policy") for text in texts]
        add_comparisons(batch, [(PromptFactory(project=project, **prompt), responses)])
        open_batch(batch, grace)
        return next_assignment(ada, project)

    return act


def send(assignment, **letters):
    return submit_judgment(
        assignment,
        by=assignment.annotator,
        answer=Answer.from_letters(assignment, letters),
        key=key(),
    )


def texts(assignment):
    """Letter to text, as shown."""
    found = dict(assignment.comparison.responses.values_list("pk", "text"))
    return {
        letter: found[pk] for letter, pk in zip("ABCDEFGHI", assignment.shown_order, strict=False)
    }


def lines(snapshot, name):
    return [json.loads(line) for line in snapshot_file(snapshot, name).read_text().splitlines()]


MARKS = {"A": {"helpfulness": 4, "correctness": 4, "coherence": 3, "complexity": 1, "verbosity": 2}}
MARKS["B"] = MARKS["A"] | {"helpfulness": 1}


def test_a_strength_comes_out_as_level_and_margin(ask, project):
    handed = ask("llama2")
    safe = {letter: {"safe": True} for letter in "AB"}
    send(
        handed,
        ranks={"helpfulness": {"A": 2, "B": 1}},
        strength={"helpfulness": 4},
        safety=safe,
    )
    (row,) = preference_rows(project)
    assert (row["strength"], row["margin"]) == ({"helpfulness": 4}, {"helpfulness": 1.0})
    (pair,) = pairs([row], "helpfulness", margins=True)
    assert (pair["strength"], pair["margin"]) == (4, 1.0)
    assert pair["chosen"][0]["content"] == texts(handed)["B"]


def test_a_plain_ranking_has_no_strength(ask, project):
    handed = ask("rank")
    send(handed, ranks={axis: {"A": 1, "B": 2} for axis in ("helpfulness", "safety")})
    (row,) = preference_rows(project)
    assert row["strength"] == {"helpfulness": None, "safety": None}
    assert "margin" not in next(pairs([row], "safety"))
    assert next(pairs([row], "safety", margins=True))["margin"] == 0.0


def test_what_a_top_k_ranking_leaves_out_loses_to_what_it_ranks_and_to_nothing_else(ask, project):
    handed = ask("top-k", ("1", "2", "3", "4"))
    send(
        handed,
        ranks={"helpfulness": {"C": 1, "A": 2}, "safety": {"D": 1}},
        all_bad=["safety"],
    )
    (row,) = preference_rows(project)
    assert (row["unranked"], row["all_bad"]) == ("below", ["safety"])
    letter = {text: name for name, text in texts(handed).items()}
    won = {
        (letter[pair["chosen"][0]["content"]], letter[pair["rejected"][0]["content"]])
        for pair in pairs([row], "helpfulness", ties="half")
    }
    assert won == {("C", "A"), ("C", "B"), ("C", "D"), ("A", "B"), ("A", "D")}


def test_a_snapshot_of_helpsteer_has_pairs_marks_and_reasons(ask, project, grace):
    handed = ask("helpsteer")
    reason = "B says nothing about the roots."
    send(
        handed,
        ranks={"overall": {"A": 1, "B": 2}},
        strength={"overall": 2},
        ratings=MARKS,
        reason=reason,
    )
    made = freeze_snapshot(project, by=grace)
    assert (made.counts["judgments"], made.counts["ratings"]) == (1, 2)
    assert made.counts["annotators"] == 1
    (row,) = lines(made, "preferences.jsonl")
    assert row["reason"] == reason
    rated = {row["response"]: row for row in lines(made, "ratings.jsonl")}
    b = rated[texts(handed)["B"]]
    assert (b["attributes"]["helpfulness"], b["safe"], b["harms"]) == (1, None, [])
    table = pq.read_table(snapshot_file(made, "ratings.parquet")).to_pylist()
    assert table[0]["attributes"]["coherence"] == 3
    paired = pq.read_table(snapshot_file(made, "pairs-overall.parquet")).to_pylist()
    assert (paired[0]["strength"], paired[0]["margin"]) == (2, 2.0)
    assert "much better (margin 3), better (margin 2), slightly better (margin 1)" in made.card
    assert "config_name: ratings" in made.card
    assert verify(made) == []


def test_a_snapshot_of_votes_on_safety_alone(ask, project, grace):
    handed = ask("rate")
    send(
        handed,
        ratings={"A": {"quality": 6}, "B": {"quality": 2}},
        safety={"A": {"safe": True}, "B": {"safe": False, "harms": ["privacy", "violence"]}},
    )
    made = freeze_snapshot(project, by=grace)
    names = {file["name"] for file in made.files}
    assert "ratings.parquet" in names
    assert not {"preferences.jsonl", "demonstrations.jsonl", "pairs-safety.jsonl"} & names
    rated = {row["response"]: row for row in lines(made, "ratings.jsonl")}
    assert rated[texts(handed)["A"]]["safe"] is True
    assert rated[texts(handed)["B"]]["harms"] == ["privacy", "violence"]
    assert "2 ratings of responses to 1 prompts" in made.card
    assert (made.counts["judgments"], made.counts["annotators"]) == (0, 1)


def test_demonstrations_and_corrections_are_rows_for_fine_tuning(ask, project, grace):
    written = ask("demonstrate", texts=())
    send(written, rewrite="Water it in the morning.")
    corrected = ask("rewrite")
    send(corrected, rewrite="First, and better.", based_on="A")
    ranked = ask("rank")
    send(
        ranked,
        ranks={axis: {"A": 1, "B": 1} for axis in ("helpfulness", "safety")},
        rewrite="Better than both.",
    )
    made = freeze_snapshot(project, by=grace)
    rows = lines(made, "demonstrations.jsonl")
    assert [(row["kind"], row["response"], row["based_on"]) for row in rows] == [
        ("demonstration", "Water it in the morning.", None),
        ("correction", "First, and better.", texts(corrected)["A"]),
        ("better_answer", "Better than both.", None),
    ]
    assert rows[0]["messages"][-1]["role"] == "user"
    assert made.counts["demonstrations"] == 3
    batches = {batch["name"]: batch["interface"] for batch in made.query["batches"]}
    assert batches == {"demonstrate": "demonstrate", "rewrite": "rewrite", "rank": "rank"}


def test_the_api_streams_what_was_written_and_rated(ask, client, rita):
    send(ask("demonstrate", texts=()), rewrite="Water it in the morning.")
    send(
        ask("rate"),
        ratings={"A": {"quality": 6}, "B": {"quality": 2}},
        safety={"A": {"safe": True}, "B": {"safe": True}},
    )
    client.force_login(rita)

    def rows(name):
        answer = client.get(reverse(f"api:{name}", args=["apollo"]))
        return [json.loads(line) for line in b"".join(answer.streaming_content).splitlines()]

    assert [row["response"] for row in rows("demonstrations")] == ["Water it in the morning."]
    assert sorted(row["attributes"]["quality"] for row in rows("ratings")) == [2, 6]


def test_what_training_may_not_see_is_in_no_file(ask, project, ada, grace):
    send(ask("demonstrate", texts=(), split="heldout"), rewrite="Held out.")
    send(
        ask("demonstrate", texts=(), source=SourceFactory(project=project, signed_off_at=None)),
        rewrite="Not signed off.",
    )
    send(ask("demonstrate", texts=()), rewrite="Taken back.")
    undo_last(ada, project)
    assert list(response_rows(project)) == []
    assert len(list(response_rows(project, only_trainable=False))) == 2
    with pytest.raises(SnapshotError):
        freeze_snapshot(project, by=grace)
