"""Frozen versions as records: what each was asked for, what differs, who withdrew, what is deprecated."""

import io
import json
import zipfile

import pytest
from django.core.management import CommandError, call_command

from annotation.data.deprecation import deprecate, undo_deprecation
from annotation.data.snapshot_diff import diff
from annotation.data.snapshot_files import SnapshotError, snapshot_file
from annotation.data.snapshot_options import SnapshotOptions
from annotation.data.snapshots import freeze_snapshot
from annotation.data.verification import verify
from annotation.models import FilterSetting, Judgment, Snapshot
from annotation.quality.assessment import reliability_of
from annotation.quality.interventions import QualityError, exclude, include
from annotation.quality.withdrawal import models_trained_on, withdraw
from rlhf.models import Checkpoint
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    UserFactory,
    judged,
)

pytestmark = pytest.mark.django_db

DATA = "/projects/apollo/data/"


@pytest.fixture
def votes(project, ada, ben):
    """Three comparisons of two responses, each judged by Ada and by Ben, who disagree on the last."""
    batch = BatchFactory(project=project, name="Round 1")
    for number in range(3):
        comparison = ComparisonFactory(
            batch=batch, prompt=PromptFactory(project=project), responses=2
        )
        judged(project, by=ada, comparison=comparison, ranks=(1, 2))
        judged(project, by=ben, comparison=comparison, ranks=(2, 1) if number == 2 else (1, 2))
    return batch


def rows_of(snapshot, name="preferences"):
    return [json.loads(line) for line in snapshot_file(snapshot, f"{name}.jsonl").open()]


# --- What a version was asked for ------------------------------------------------------------------------


def test_a_version_records_what_it_was_asked_for_and_its_hash_covers_that(project, rita, votes):
    kept_out = SourceFactory(project=project, name="Forum", signed_off_at=None)
    judged(project, batch=votes, source=kept_out)
    snapshot = freeze_snapshot(project, by=rita, note="the first")
    query = snapshot.query
    assert query["pseudonyms"]["generation"] == 1
    assert query["code"]
    assert query["kept_out"] == [{"source": "Forum", "why": "not signed off", "n_judgments": 1}]
    assert query["options"] == {"votes": "raw", "axes": [], "filters": []}
    assert [axis["key"] for axis in query["axes"]] == project.axis_keys
    assert [entry["version"] for entry in query["guidelines"]] == [1]
    frozen = json.loads(snapshot_file(snapshot, "snapshot.json").read_text())
    assert frozen["query"] == json.loads(json.dumps(query))
    assert rita.username not in snapshot_file(snapshot, "snapshot.json").read_text()
    assert "snapshot.json" in snapshot_file(snapshot, "SHA256SUMS").read_text()
    assert verify(snapshot) == []
    Snapshot.objects.update(counts={**snapshot.counts, "judgments": 7})
    snapshot.refresh_from_db()
    assert [str(f) for f in verify(snapshot)] == [
        "snapshot.json and the database differ in counts."
    ]


def test_tied_pairs_and_axes_are_chosen(project, rita, ada):
    judged(project, by=ada, ranks={"helpfulness": (1, 1), "safety": (1, 2)})
    both = freeze_snapshot(project, by=rita, options=SnapshotOptions(ties="half"))
    assert both.counts["pairs"] == {"helpfulness": 2, "safety": 1}
    assert {row["weight"] for row in rows_of(both, "pairs-helpfulness")} == {0.5}
    safety = freeze_snapshot(project, by=rita, options=SnapshotOptions(axes=("safety",)))
    assert safety.counts["pairs"] == {"safety": 1}
    assert list(safety.agreement) == ["safety"]
    assert list(rows_of(safety)[0]["ranks"]) == ["safety"]
    with pytest.raises(SnapshotError, match="no axis “wit”"):
        freeze_snapshot(project, by=rita, options=SnapshotOptions(axes=("wit",)))


def test_a_consensus_is_one_row_for_each_comparison(project, rita, vera, votes):
    ruled = votes.comparisons.order_by("pk").last()
    ruling = judged(project, by=vera, comparison=ruled, ranks=(2, 1))
    ruling.is_ruling = True
    ruling.save()
    votes.comparisons.filter(pk=ruled.pk).update(is_ruled=True)
    snapshot = freeze_snapshot(
        project,
        by=rita,
        options=SnapshotOptions(votes="consensus"),
        quality=reliability_of(project),
    )
    rows = rows_of(snapshot)
    assert [row["annotator"].split("-")[0] for row in rows] == [
        "consensus",
        "consensus",
        "reviewer",
    ]
    assert [row["ranks"]["safety"] for row in rows] == [[1, 2], [1, 2], [2, 1]]
    assert len({row["judgment_id"] for row in rows}) == 3
    assert (snapshot.counts["judgments"], snapshot.counts["annotators"]) == (3, 2)
    assert snapshot.agreement["safety"]["n_comparisons"] == 3, "agreement is that of the votes"


def test_only_a_filter_that_has_earned_it_leaves_rows_out(project, rita, votes):
    FilterSetting.objects.create(project=project, filter="abuse", threshold=0.6, version=1)
    for filters, why in ((("abuse",), "can't exclude rows yet"), (("hate",), "has not been run")):
        with pytest.raises(SnapshotError, match=why):
            freeze_snapshot(project, by=rita, options=SnapshotOptions(filters=filters))
    assert not Snapshot.objects.exists()


def test_rotated_pseudonyms_are_new_from_then_on_and_each_version_says_which_it_has(
    project, rita, ada, votes
):
    before = freeze_snapshot(project, by=rita)
    call_command("rotate_pseudonyms", project.slug)
    project.refresh_from_db()
    after = freeze_snapshot(project, by=rita)
    generations = [snapshot.query["pseudonyms"]["generation"] for snapshot in (before, after)]
    assert generations == [1, 2]
    names = [{row["annotator"] for row in rows_of(snapshot)} for snapshot in (before, after)]
    assert len(names[0]) == len(names[1]) == 2
    assert names[0].isdisjoint(names[1])
    assert verify(before) == []
    with pytest.raises(CommandError, match="no project “x”"):
        call_command("rotate_pseudonyms", "x")


# --- Two versions ----------------------------------------------------------------------------------------


def test_the_difference_of_two_versions_names_rows_columns_figures_and_settings(
    project, rita, ada, ben, votes, capsys
):
    first = freeze_snapshot(project, by=rita)
    changed, gone = Judgment.objects.filter(assignment__annotator=ben).order_by("pk")[:2]
    changed.strength = {"helpfulness": {"level": 2, "margin": 0.5}}
    changed.save()
    exclude(project, [gone.pk], ben, "a slip")
    more = judged(project, by=ada, batch=votes, ranks=(1, 2)).judgment
    second = freeze_snapshot(project, by=rita, options=SnapshotOptions(ties="half"))
    difference = diff(first, second)
    tables = {table.name: table for table in difference.tables}
    judgments = tables["preferences"]
    assert (judgments.added, judgments.removed, judgments.changed) == (1, 1, 1)
    assert judgments.examples["added"][0]["judgment_id"] == str(more.uid)
    assert judgments.examples["removed"][0]["judgment_id"] == str(gone.uid)
    assert judgments.examples["changed"][0]["columns"] == ["strength", "margin"]
    pairs = tables["pairs-helpfulness"]
    assert {name for name, *_ in pairs.columns} == {"strength", "margin"}
    assert (pairs.added, pairs.removed, pairs.changed) == (1, 1, 0)
    assert ("ties", "drop", "half") in difference.settings
    assert ("left out excluded", 0, 1) in difference.figures
    same = diff(second, second)
    assert [same.figures, same.settings, same.has_other_columns] == [[], [], False]
    assert all(not (t.added or t.removed or t.changed) for t in same.tables)
    partial = diff(first, second, max_rows=3)
    assert (partial.is_complete, partial.tables[0].added) == (False, None)
    call_command("diff_snapshots", project.slug, "1", "2")
    assert "preferences: 6 -> 6 rows, 1 added, 1 removed, 1 changed" in capsys.readouterr().out
    call_command("verify_snapshot", project.slug)
    (second.folder / "schema.json").write_text("{}")
    with pytest.raises(CommandError, match="1 faults"):
        call_command("verify_snapshot", project.slug)
    assert "schema.json was changed." in capsys.readouterr().out


# --- Withdrawal and deprecation ----------------------------------------------------------------------------


def test_a_withdrawal_gives_a_version_without_the_person_and_names_the_models(
    project, grace, ben, votes
):
    old = freeze_snapshot(
        project, by=grace, batches=[votes], rounds={votes.pk: 4}, options=SnapshotOptions("half")
    )
    model = Checkpoint.objects.create(
        project=project, kind="reward_model", name="RM 1", path="x", snapshot=old
    )
    done = withdraw(project, ben, grace, "by mail")
    assert (done.withdrawal.n_judgments, done.withdrawal.versions) == (3, {"1": 3})
    assert models_trained_on(done.withdrawal) == [(old, 3, [model])]
    new = Snapshot.objects.get(version=2)
    assert done.made == done.withdrawal.new_version == new
    assert len(rows_of(new)) == 3
    assert {row["round"] for row in rows_of(new)} == {"round 4"}, "as the old one was asked for"
    assert new.query["ties"] == "half"
    old.refresh_from_db()
    assert old.deprecation_note == (
        "3 of its rows rest on judgments that were withdrawn. Use version 2 instead."
    )
    assert verify(old) == [], "what was frozen stays as it is"
    excluded = Judgment.objects.filter(assignment__annotator=ben)
    assert include(project, excluded.values_list("pk", flat=True), grace) == 0, "for good"
    assert excluded.filter(excluded_at__isnull=True).count() == 0
    again = withdraw(project, ben, grace)
    assert again.withdrawal == done.withdrawal
    assert again.withdrawal.n_judgments == 3


def test_a_consensus_rests_on_each_of_its_votes(project, grace, ben, votes):
    options = SnapshotOptions(votes="consensus")
    freeze_snapshot(project, by=grace, options=options, quality=reliability_of(project))
    done = withdraw(project, ben, grace)
    assert done.withdrawal.versions == {"1": 3}
    assert done.made.query["options"]["votes"] == "consensus"
    assert done.made.counts["annotators"] == 1


def test_a_person_alone_leaves_no_version_and_the_reason_is_given(project, grace, ada):
    judged(project, by=ada)
    freeze_snapshot(project, by=grace)
    done = withdraw(project, ada, grace)
    assert done.made is None
    assert "excluded" in done.why_none
    assert Snapshot.objects.get().deprecation_note.startswith("1 of its rows rests on")
    with pytest.raises(QualityError):
        exclude(project, [], grace, "")


# --- Pages and API -----------------------------------------------------------------------------------------


def test_the_pages_of_versions_say_and_do_all_this(client, project, rita, grace, ben, votes):
    client.force_login(rita)
    counted = client.get(DATA, {"counting": "on", "choosing": "on"}).content.decode()
    assert "<dt>judgments included</dt><dd>0</dd>" in " ".join(counted.split()).replace("> <", "><")
    client.post(DATA, {"ties": "half", "axes": ["safety"], "votes": "consensus"})
    client.post(DATA, {})
    page = client.get(DATA + "1/").content.decode()
    assert "one consensus for each comparison" in page
    compared = client.get(DATA + "2/compare/").content.decode()
    assert "From version 1 to version 2" in compared
    assert '<td data-label="Before">half</td>' in compared
    assert (
        "are as they were frozen" in client.post(DATA + "2/verify/", follow=True).content.decode()
    )
    (Snapshot.objects.get(version=2).folder / "preferences.jsonl").write_text("<b>x</b>")
    assert (
        "preferences.jsonl was changed."
        in client.post(DATA + "2/verify/", follow=True).content.decode()
    )
    api = "/api/v1/projects/apollo/"
    assert client.post(api + "snapshots/2/verify/").json()["faults"] == [
        {"name": "preferences.jsonl", "what": "was changed"}
    ]
    assert client.get(api + "snapshots/1/diff/1/").json()["settings"] == []
    client.post(DATA + "1/deprecate/", {"note": "Wrong <i>axis</i>."})
    shown = client.get(DATA + "1/").content.decode()
    assert "Wrong &lt;i&gt;axis&lt;/i&gt;." in shown
    assert client.get(api + "snapshots/1/").json()["deprecation_note"] == "Wrong <i>axis</i>."
    note = {"note": ""}
    client.put(api + "snapshots/1/deprecation/", note, content_type="application/json")
    assert client.get(api + "snapshots/1/").json()["deprecated_at"] is None
    client.force_login(grace)
    withdrawals = DATA + "withdrawals/"
    assert "Nobody withdrew" in client.get(withdrawals).content.decode()
    client.post(withdrawals, {"person": ben.pk, "confirm": "somebody"})
    assert not project.withdrawals.exists()
    answer = client.post(withdrawals, {"person": ben.pk, "confirm": ben.username}, follow=True)
    assert "3 judgments of ben are withdrawn." in answer.content.decode()
    listed = client.get(api + "withdrawals/").json()
    assert (listed[0]["person"], listed[0]["n_judgments"]) == ("ben", 3)
    stranger = UserFactory()
    unknown = {"person": stranger.username}
    status = client.post(api + "withdrawals/", unknown, content_type="application/json").status_code
    assert status == 404


def zip_of_version(client):
    answer = b"".join(client.get(DATA + "1/archive.zip").streaming_content)
    with zipfile.ZipFile(io.BytesIO(answer)) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_the_card_that_is_downloaded_carries_the_deprecation(client, project, rita, votes):
    snapshot = freeze_snapshot(project, by=rita)
    client.force_login(rita)
    frozen = zip_of_version(client)
    deprecate(snapshot, rita, "Wrong [axis](x).\n# Use version 2.")
    card = b"".join(client.get(DATA + "1/files/README.md").streaming_content).decode()
    front, text = card.split("---\n", 2)[1:]
    assert "configs:" in front
    assert text.lstrip().startswith("> **Deprecated")
    assert r"Wrong \[axis\](x). \# Use version 2." in text
    packed = zip_of_version(client)
    assert packed.pop("README.md").decode() == card
    assert packed == {name: data for name, data in frozen.items() if name != "README.md"}
    assert "README.md" not in packed["SHA256SUMS"].decode()
    assert verify(snapshot) == []
    undo_deprecation(snapshot, rita)
    assert zip_of_version(client) == frozen
