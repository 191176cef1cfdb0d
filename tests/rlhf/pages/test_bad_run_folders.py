"""Whatever lies in a run folder, the pages and the API answer."""

import json
import math

import pytest
from django.urls import reverse

from rlhf.training import rundir
from rlhf.training.rundir.reports import read_metrics, read_progress, read_result

pytestmark = pytest.mark.django_db

DEEP = "[" * 20_000 + "]" * 20_000
DIGITS = "9" * 5_000
BAD_LINES = [
    f'{{"step": 20, "reward": {DEEP}}}',
    f'{{"step": {DIGITS}, "reward": 1}}',
    f'{{"step": 21, "reward": {DIGITS}}}',
    '{"step": 22, "reward": [1, 2]}',
    '{"step": 23, "reward": Infinity, "kl": NaN}',
    '{"step": 24, "reward": 1e999}',
    '{"step": true, "reward": 1}',
    '{"step": [1], "reward": 1}',
    "[]",
    "\udcff".encode("utf-8", "surrogateescape").decode("latin-1"),
]


@pytest.fixture
def spoiled(mission):
    """The running stage's folder with every kind of line that is no metric."""
    folder = mission["running"].run_dir
    bad = "\n".join(BAD_LINES)
    for name in (rundir.METRICS, "samples.jsonl"):
        with (folder / name).open("a") as file:
            file.write("\n" + bad + "\n")
    with (folder / "samples.jsonl").open("a") as file:
        file.write(
            '{"step": 1e300, "messages": 7, "before": [1], "after": {}, "scores_before": [1],'
            ' "scores_after": 3, "reward_before": [1], "reward_after": Infinity}\n'
        )
    progress = {"done": [1], "total": math.inf, "unit": 3, "note": {"a": 1}, "eta_seconds": "soon"}
    (folder / rundir.PROGRESS).write_text(json.dumps(progress))
    (folder / rundir.RESULT).write_text('{"steps": [1], "reward": Infinity, "kl": {"a": NaN}}')
    (folder / rundir.ERROR).write_text('{"kind": [1], "message": {"a": 1}}')
    return mission["running"]


@pytest.mark.parametrize("role", ["rita", "grace"])
def test_no_line_of_a_run_folder_breaks_a_page(client, project, spoiled, role, request):
    client.force_login(request.getfixturevalue(role))
    slug = project.slug
    for address in (
        reverse("round", args=[slug, 3]),
        reverse("round", args=[slug, 3]) + "?stage=ppo",
        reverse("metrics", args=[slug, 3, "ppo"]),
        reverse("metrics_csv", args=[slug, 3, "ppo"]),
        reverse("rounds", args=[slug]),
        reverse("dashboard", args=[slug]),
        reverse("samples", args=[slug, 3]),
        reverse("api:job", args=[slug, spoiled.uid]),
        reverse("api:job_metrics", args=[slug, spoiled.uid]),
    ):
        answer = client.get(address)
        assert answer.status_code == 200, address
        if answer["Content-Type"].startswith("application/json"):
            text = b"".join(answer).decode()
            json.loads(text, parse_constant=pytest.fail)  # no NaN, no Infinity


def test_what_is_a_number_stays_one(spoiled):
    rows = {row["step"]: row for row in read_metrics(spoiled.run_dir, after_step=19)}
    assert set(rows) == {22, 23, 24}
    assert all(row["reward"] is None for row in rows.values())
    assert read_progress(spoiled.run_dir) == {
        "done": None,
        "total": None,
        "eta_seconds": None,
        "unit": "",
        "note": "",
    }
    assert read_result(spoiled.run_dir) == {"steps": [1], "reward": None, "kl": {"a": None}}
