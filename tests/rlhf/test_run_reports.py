"""What pages read from run folders, whole or torn."""

import json

import pytest

from annotation.lib.word_diff import side_by_side
from rlhf import run_reports
from rlhf.dashboard.curves import CURVES, curves_of
from rlhf.training import rundir
from tests.rlhf.factories import ppo_metrics, ppo_samples

pytestmark = pytest.mark.django_db


def test_only_new_lines_come_and_a_torn_one_waits(mission):
    job = mission["running"]
    first = run_reports.metrics_since(job, epoch=-1, after=-1)
    assert (first["reset"], first["last"], len(first["rows"])) == (True, 9, 9)
    again = run_reports.metrics_since(job, epoch=1, after=9)
    assert (again["reset"], again["rows"], again["last"]) == (False, [], 9)
    with (job.run_dir / rundir.METRICS).open("a") as file:
        file.write('ard": 1.0}\n' + json.dumps({"step": 10, "reward": 1.5}) + "\n")
    new = run_reports.metrics_since(job, epoch=1, after=9)
    assert [row["step"] for row in new["rows"]] in ([10], [99, 10])


def test_a_newer_claim_of_the_job_starts_the_reader_afresh(mission):
    job = mission["running"]
    job.epoch = 2
    job.save()
    job.run_dir.mkdir()
    ppo_metrics(job.run_dir, 3)
    news = run_reports.metrics_since(job, epoch=1, after=9)
    assert (news["reset"], news["epoch"], len(news["rows"])) == (True, 2, 3)


def test_a_claim_without_a_folder_yet_shows_the_one_before(mission):
    job = mission["running"]
    job.epoch = 2
    assert run_reports.run_folder(job).name == "1"


def test_the_logs_tail_is_plain_text_of_bounded_size(mission):
    job = mission["running"]
    noise = "\x1b[31mred\x1b[0m \x00\x07 10%\r 90%\rdone\n"
    (job.run_dir / rundir.LOG).write_bytes(b"x" * 50_000 + b"\n" + noise.encode() + b"\xff\xfe")
    tail = run_reports.log_tail(job)
    assert len(tail) <= run_reports.LOG_BYTES + 10
    assert "\x1b" not in tail
    assert "\x00" not in tail
    assert "done" in tail
    assert " 90%" not in tail


def test_words_that_differ_are_marked_on_their_own_side():
    left, right = side_by_side("water it daily", "water it once a week")
    assert "".join(piece.text for piece in left) == "water it daily"
    assert "".join(piece.text for piece in right) == "water it once a week"
    assert [piece.text for piece in left if piece.kind == "del"] == ["daily"]
    assert [piece.text.strip() for piece in right if piece.kind == "ins"] == ["once a week"]


def test_a_huge_text_is_compared_by_lines_rather_than_by_words():
    same, old, new = "same line\n", "a " * 50_000, "b " * 50_000
    left, _ = side_by_side(same + old, same + new)
    assert [(piece.kind, piece.text) for piece in left] == [("same", same), ("del", old)]


def test_samples_of_the_last_step_are_shown(mission):
    job = mission["running"]
    ppo_samples(job.run_dir)
    pairs = run_reports.before_after(job)
    assert len(pairs) == 3
    assert pairs[0].gain == pytest.approx(1.3)


def test_rows_of_the_wrong_shape_break_nothing(mission):
    job = mission["running"]
    rows = ["[]", "3", '{"messages": "no", "before": 4, "scores_before": {"x": "y"}}', "{", ""]
    (job.run_dir / "samples.jsonl").write_text("\n".join(rows))
    assert [pair.prompt for pair in run_reports.before_after(job)] == [""]
    assert len(run_reports.evaluation_samples(job)) == 1


def test_every_rule_has_a_curve_of_its_own_and_a_multiplier_is_shown_where_there_is_one():
    plain = {c.key for c in curves_of("ppo", {"ppo": {}})}
    assert plain == {c.key for c in CURVES["ppo"]}
    config = {
        "ppo": {
            "rules": {"must_refuse": 1.0, "format": 0.5},
            "combine": "lagrange",
            "ptx_weight": 0.5,
        },
        "reward_model": {"members": 3},
    }
    more = {c.key for c in curves_of("ppo", config)} - plain
    assert more == {"rule_must_refuse", "rule_format", "cost", "multiplier", "disagreement", "ptx"}
    assert curves_of("base", config) == CURVES["base"]
    assert curves_of("snapshot", {}) == ()
