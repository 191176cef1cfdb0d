"""A row of every published shape, and what is read of it."""

import io
import json

import pytest

from annotation.data.import_formats.items import read_items
from annotation.data.import_formats.report import ImportReport
from annotation.data.import_formats.shapes import SHAPES

Q, A, B = "Name a tree.", "An oak.", "A rock."


def user(text=Q):
    return {"role": "user", "content": text}


def model(text):
    return {"role": "assistant", "content": text}


def human(text=Q):
    return f"\n\nHuman: {text}\n\nAssistant:"


A_IS_BETTER, B_IS_BETTER, TIE = (
    {"helpfulness": [1, 2]},
    {"helpfulness": [2, 1]},
    {"helpfulness": [1, 1]},
)
PAIR = {"chosen": A, "rejected": B}

# Shape, rows of one item, ranks of "An oak." and "A rock.".
JUDGED = [
    ("trl", [{"prompt": Q, **PAIR, "margin": 0.5}], A_IS_BETTER),
    ("trl", [{"prompt": [user()], "chosen": [model(A)], "rejected": [model(B)]}], A_IS_BETTER),
    ("trl", [{"chosen": [user(), model(A)], "rejected": [user(), model(B)]}], A_IS_BETTER),
    # UltraFeedback binarized, with equal scores a tie; Orca, Alpaca and ShareGPT pairs.
    (
        "trl",
        [{"prompt": Q, "chosen": [user(), model(A)], "rejected": [user(), model(B)]}],
        A_IS_BETTER,
    ),
    (
        "trl",
        [
            {
                "prompt": Q,
                "chosen": [user(), model(A)],
                "rejected": [user(), model(B)],
                "score_chosen": 4.0,
                "score_rejected": 4.0,
            }
        ],
        TIE,
    ),
    ("trl", [{"question": Q, **PAIR}], A_IS_BETTER),
    ("trl", [{"instruction": Q, "input": "", **PAIR}], A_IS_BETTER),
    (
        "trl",
        [
            {
                "conversations": [{"from": "human", "value": Q}],
                "chosen": {"from": "gpt", "value": A},
                "rejected": {"from": "gpt", "value": B},
            }
        ],
        A_IS_BETTER,
    ),
    ("transcript", [{"chosen": f"{human()} {A}", "rejected": f"{human()} {B}"}], A_IS_BETTER),
    ("ranking", [{"messages": [user()], "responses": [A, B], "ranks": [1, 2]}], A_IS_BETTER),
    ("right and wrong", [{"prompt": Q, "chosen": [A], "rejected": [B]}], A_IS_BETTER),
    (
        "tree",
        [
            {
                "prompt": {
                    "text": Q,
                    "role": "prompter",
                    "replies": [
                        {"text": A, "role": "assistant", "rank": 0.0, "replies": []},
                        {"text": B, "role": "assistant", "rank": 1.0, "replies": []},
                    ],
                }
            }
        ],
        A_IS_BETTER,
    ),
    (
        "tree messages",
        [
            {
                "message_id": "q",
                "parent_id": None,
                "text": Q,
                "role": "prompter",
                "message_tree_id": "t",
            },
            {
                "message_id": "a",
                "parent_id": "q",
                "text": A,
                "role": "assistant",
                "rank": 0,
                "message_tree_id": "t",
            },
            {
                "message_id": "b",
                "parent_id": "q",
                "text": B,
                "role": "assistant",
                "rank": 1,
                "message_tree_id": "t",
            },
        ],
        A_IS_BETTER,
    ),
    ("shp", [{"history": Q, "human_ref_A": A, "human_ref_B": B, "labels": 0}], B_IS_BETTER),
    (
        "webgpt",
        [
            {
                "question": {"full_text": Q, "id": "7"},
                "answer_0": A,
                "answer_1": B,
                "score_0": 0.5,
                "score_1": -0.5,
            }
        ],
        A_IS_BETTER,
    ),
    (
        "summaries",
        [
            {
                "info": {"post": Q},
                "summaries": [{"text": A}, {"text": B}],
                "choice": 1,
                "worker": "w",
            }
        ],
        B_IS_BETTER,
    ),
    ("a or b", [{"instruction": Q, "output_1": A, "output_2": B, "preference": 2}], B_IS_BETTER),
    (
        "a or b",
        [{"prompt": Q, "response_a": A, "response_b": B, "winner": "tie", "rater": "r"}],
        TIE,
    ),
    (
        "arena",
        [
            {
                "conversation_a": [user(), model(A)],
                "conversation_b": [user(), model(B)],
                "winner": "model_b",
                "judge": "j",
            }
        ],
        B_IS_BETTER,
    ),
    (
        "arena texts",
        [
            {
                "prompt": json.dumps([Q]),
                "response_a": json.dumps([A]),
                "response_b": json.dumps([B]),
                "winner_model_a": 1,
                "winner_model_b": 0,
            }
        ],
        A_IS_BETTER,
    ),
    (
        "helpsteer preference",
        [
            {
                "context": [user()],
                "response1": A,
                "response2": B,
                "overall_preference": -2,
                "individual_preference": [],
            }
        ],
        A_IS_BETTER,
    ),
    (
        "ultrafeedback",
        [
            {
                "instruction": Q,
                "completions": [
                    {"response": A, "overall_score": 8.0},
                    {"response": B, "overall_score": 3},
                ],
            }
        ],
        A_IS_BETTER,
    ),
    (
        "ranked answers",
        [{"prompt": human(), "answers": [{"answer": A, "rank": 1.0}, {"answer": B, "rank": 2}]}],
        A_IS_BETTER,
    ),
    (
        "safe rlhf",
        [
            {
                "prompt": Q,
                "response_0": A,
                "response_1": B,
                "better_response_id": 1,
                "safer_response_id": 0,
            }
        ],
        {"helpfulness": [2, 1], "safety": [1, 2]},
    ),
    (
        "label studio",
        [
            {
                "data": {"prompt": Q, "one": A, "two": B},
                "annotations": [
                    {
                        "completed_by": 3,
                        "result": [{"type": "pairwise", "value": {"selected": "right"}}],
                    }
                ],
            }
        ],
        B_IS_BETTER,
    ),
    (
        "label studio",
        [
            {
                "data": {"prompt": Q, "items": [{"id": "x", "body": A}, {"id": "y", "body": B}]},
                "annotations": [
                    {"result": [{"type": "ranker", "value": {"ranker": {"rank": ["y", "x"]}}}]}
                ],
            }
        ],
        B_IS_BETTER,
    ),
    (
        "argilla",
        [
            {
                "prompt": Q,
                "one": A,
                "two": B,
                "order.responses": [[{"value": "one", "rank": 1}, {"value": "two", "rank": 2}]],
                "order.responses.users": ["u"],
                "order.responses.status": ["submitted"],
            }
        ],
        A_IS_BETTER,
    ),
    (
        "openai preference",
        [
            {
                "input": {"messages": [user()]},
                "preferred_output": [model(A)],
                "non_preferred_output": [model(B)],
            }
        ],
        A_IS_BETTER,
    ),
]
UNJUDGED = [
    ("responses", [{"prompt": Q, "responses": [A, {"text": B, "source": "m"}]}]),
    ("responses", [{"messages": [user()], "response_1": A, "response_2": B}]),
    ("answered", [{"prompt": Q, "completion": A}]),
    ("answered", [{"instruction": "Name", "input": "a tree.", "output": A}]),
    ("answered conversation", [{"messages": [user(), model(A)], "tools": []}]),
    (
        "answered conversation",
        [{"conversations": [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]}],
    ),
]
RATED = [
    (
        "helpsteer",
        [
            {"prompt": Q, "response": A, "helpfulness": 4, "correctness": 3},
            {"prompt": Q, "response": B, "helpfulness": 0, "correctness": 0},
        ],
    ),
    (
        "unpaired",
        [
            {"prompt": Q, "completion": A, "label": True},
            {"prompt": Q, "completion": B, "label": False},
        ],
    ),
]
PROMPTS = [
    ("plain", [{"prompt": Q}]),
    ("conversation", [{"messages": [user()]}]),
    ("prompt transcript", [{"prompt": human()}]),
    ("instructions", [{"instruction": "Name", "input": "a tree."}]),
    ("turns", [{"turns": [Q, "And a bird?"]}]),
    ("prompt tree", [{"prompt": {"text": Q, "role": "prompter"}}]),
]


def read(rows, **options):
    report = ImportReport()
    lines = io.BytesIO("\n".join(json.dumps(row) for row in rows).encode())
    items = list(
        read_items(lines, report, axis="helpfulness", axes=["helpfulness", "safety"], **options)
    )
    return items, report


@pytest.mark.parametrize(("name", "rows", "ranks"), JUDGED)
def test_a_judged_row_is_recognized_and_read_as_a_vote(name, rows, ranks):
    [item], report = read(rows)
    assert (report.problems, report.format) == ([], name)
    order = sorted(range(2), key=lambda index: item.responses[index][0] != A)
    assert [item.responses[index][0] for index in order] == [A, B]
    assert {axis: [given[i] for i in order] for axis, given in item.ranks.items()} == ranks
    assert Q in item.prompt.text


@pytest.mark.parametrize(("name", "rows"), UNJUDGED + RATED + PROMPTS)
def test_rows_without_an_order_keep_their_prompt_responses_and_marks(name, rows):
    [item], report = read(rows)
    assert (report.problems, report.format, item.ranks) == ([], name, {})
    assert len(item.prompt.messages) == 1
    assert bool(item.responses) == ((name, rows) not in PROMPTS)
    assert bool(item.ratings) == ((name, rows) in RATED)


def test_every_shape_has_a_row_here():
    assert set(SHAPES) == {row[0] for row in JUDGED + UNJUDGED + RATED + PROMPTS}


def test_several_raters_of_one_item_stay_several():
    row = {
        "context": [user()],
        "response1": A,
        "response2": B,
        "overall_preference": -1,
        "individual_preference": [{"score": -3, "reasoning": "right"}, {"score": 1}, {"score": 0}],
    }
    items, report = read([row])
    assert [item.ranks["helpfulness"] for item in items] == [[1, 2], [2, 1], [1, 1]]
    assert [item.vote.annotator for item in items] == ["rater 1", "rater 2", "rater 3"]
    assert items[0].vote.strength == {"helpfulness": {"level": 3, "margin": 3.0}}
    assert "no names in the file" in report.remarks[0]


def test_marks_have_their_scale_and_harm_its_kinds():
    _, report = read(RATED[0][1])
    assert report.attributes == {"helpfulness": (0, 4), "correctness": (0, 4)}
    row = {
        "prompt": Q,
        "response_0": A,
        "response_1": B,
        "better_response_id": 0,
        "safer_response_id": 0,
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "response_1_harm_category": {"Privacy Violation": True, "Violence": False},
    }
    [item], report = read([row])
    assert item.safety == [
        {"safe": True, "harms": []},
        {"safe": False, "harms": ["privacy_violation"]},
    ]
    assert report.harms == {"privacy_violation": "Privacy Violation"}


def test_a_row_of_no_shape_is_refused_with_the_list_of_what_is_read():
    _, report = read([{"foo": 1, "bar": 2}])
    assert "'foo', 'bar'" in report.problems[0].reason
    for title in ("HelpSteer", "Label Studio", "UltraFeedback", "SHP", "Nectar", "KTO"):
        assert title in report.problems[0].reason


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("value", [None, 7, "", [], {}, [None], {"a": 1}, [["x"]]])
def test_no_value_in_any_place_is_a_crash(name, value):
    for given, rows, *_ in JUDGED + UNJUDGED + RATED + PROMPTS:
        if given == name:
            for key in rows[0]:
                _, report = read([{**row, key: value} for row in rows])
                assert all(len(str(problem)) < 3_000 for problem in report.problems)


def test_columns_can_be_renamed_and_left_out():
    row = {"frage": Q, "gut": A, "schlecht": B, "prompt_zh": "x"}
    names = {"frage": "prompt", "gut": "chosen", "schlecht": "rejected", "prompt_zh": ""}
    [item], report = read([row], columns=names)
    assert (report.format, report.remarks, item.ranks) == ("trl", [], A_IS_BETTER)
