"""Frozen data: what is in it, that it never changes, and that other people's tools open it."""

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from annotation.data.preferences import preference_rows
from annotation.data.snapshot_files import SnapshotError, archive, snapshot_file
from annotation.data.snapshots import freeze_snapshot
from annotation.data.verification import verify
from annotation.models import Prompt, Snapshot, Source
from tests.annotation.data.exports.tiny_llama import once, tiny_llama
from tests.factories import (
    BatchFactory,
    ComparisonFactory,
    PromptFactory,
    SourceFactory,
    judged,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def judgments(project, ada, ben):
    """Six comparisons of four responses, each judged by two people."""
    batch = BatchFactory(project=project, name="Round 1")
    source = SourceFactory(project=project, name="Greenhouse", licence="MIT")
    for number in range(6):
        comparison = ComparisonFactory(
            batch=batch, prompt=PromptFactory(project=project, source=source)
        )
        judged(project, by=ada, comparison=comparison, ranks=(1, 2, 3, 4))
        judged(project, by=ben, comparison=comparison, ranks=(1, 2, 4 - number % 2, 3))
    return batch


def folder(snapshot):
    return snapshot_file(snapshot, "README.md").parent


def test_a_snapshot_holds_rows_pairs_card_and_hashes(project, rita, judgments):
    snapshot = freeze_snapshot(project, by=rita, note="the first")
    assert snapshot.version == 1
    names = [file["name"] for file in snapshot.files]
    assert names == [
        "README.md", "pairs-helpfulness.jsonl", "pairs-helpfulness.parquet", "pairs-safety.jsonl",
        "pairs-safety.parquet", "preferences.jsonl", "preferences.parquet", "schema.json",
        "snapshot.json", "SHA256SUMS",
    ]  # fmt: skip
    assert snapshot.counts["judgments"] == 12
    assert snapshot.counts["prompts"] == 6
    assert snapshot.counts["annotators"] == 2
    # Ben ties two responses in every other comparison, which then has five pairs and not six.
    assert snapshot.counts["pairs"] == {"helpfulness": 69, "safety": 69}
    assert snapshot.counts["ties"] == {"helpfulness": 3, "safety": 3}
    assert snapshot.licences[0]["licence"] == "MIT"
    assert snapshot.agreement["helpfulness"]["n_comparisons"] == 6
    rows = [json.loads(line) for line in snapshot_file(snapshot, "preferences.jsonl").open()]
    assert rows == list(preference_rows(project))


def test_every_file_has_the_hash_that_is_recorded(project, rita, judgments):
    snapshot = freeze_snapshot(project, by=rita)
    for file in snapshot.files:
        data = snapshot_file(snapshot, file["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == file["sha256"]
        assert len(data) == file["bytes"]
    sums = snapshot_file(snapshot, "SHA256SUMS").read_bytes()
    assert hashlib.sha256(sums).hexdigest() == snapshot.sha256
    assert verify(snapshot) == []
    snapshot_file(snapshot, "preferences.jsonl").write_text("changed")
    assert [str(fault) for fault in verify(snapshot)] == ["preferences.jsonl was changed."]
    snapshot_file(snapshot, "preferences.jsonl").unlink()
    (snapshot.folder / "more.jsonl").touch()
    assert [str(fault) for fault in verify(snapshot)] == [
        "preferences.jsonl is missing.", "more.jsonl was added.",
    ]  # fmt: skip


def test_a_snapshot_stays_as_it_was_when_people_judge_on(project, rita, ada, judgments):
    first = freeze_snapshot(project, by=rita)
    before = {path.name: path.read_bytes() for path in folder(first).iterdir()}
    packed = b"".join(archive(first))
    judged(project, by=ada, batch=judgments)
    second = freeze_snapshot(project, by=rita)
    assert (second.version, second.counts["judgments"]) == (2, 13)
    assert {path.name: path.read_bytes() for path in folder(first).iterdir()} == before
    assert b"".join(archive(Snapshot.objects.get(version=1))) == packed


def test_the_same_judgments_give_the_same_data_files(project, rita, judgments):
    one, two = freeze_snapshot(project, by=rita), freeze_snapshot(project, by=rita)
    hashes = [
        {f["name"]: f["sha256"] for f in s.files if f["rows"] is not None} for s in (one, two)
    ]
    assert hashes[0] == hashes[1]


def test_parquet_and_json_lines_say_the_same(project, rita, judgments):
    snapshot = freeze_snapshot(project, by=rita)
    for name in ("pairs-helpfulness", "pairs-safety", "preferences"):
        table = pq.read_table(snapshot_file(snapshot, f"{name}.parquet")).to_pylist()
        lines = snapshot_file(snapshot, f"{name}.jsonl").read_text().splitlines()
        assert table == [json.loads(line) for line in lines]


def test_nothing_to_freeze_is_a_sentence_and_leaves_no_trace(project, rita, ada, settings):
    with pytest.raises(SnapshotError, match="no judgments yet"):
        freeze_snapshot(project, by=rita)
    judged(project, by=ada, split=Prompt.Split.HELDOUT)
    judged(project, by=ada, source=SourceFactory(project=project, signed_off_at=None))
    with pytest.raises(SnapshotError, match="nobody has signed off") as refused:
        freeze_snapshot(project, by=rita)
    assert "1 are about held-out" in str(refused.value)
    assert not Snapshot.objects.exists()
    assert list(Path(settings.SNAPSHOTS_DIR).iterdir()) == []


def test_held_out_prompts_are_counted_and_left_out(project, rita, ada, judgments):
    hidden = judged(project, by=ada, split=Prompt.Split.HELDOUT).comparison.prompt
    snapshot = freeze_snapshot(project, by=rita)
    assert snapshot.counts["left_out"]["heldout"] == 1
    for path in folder(snapshot).glob("*.jsonl"):
        assert str(hidden.uid) not in path.read_text()


def test_a_failure_half_way_leaves_no_folder(project, rita, judgments, settings, monkeypatch):
    monkeypatch.setattr("annotation.data.snapshots.snapshot_record", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        freeze_snapshot(project, by=rita)
    assert list(Path(settings.SNAPSHOTS_DIR).iterdir()) == []
    assert not Snapshot.objects.exists()


def test_only_named_files_can_be_had(project, rita, judgments):
    snapshot = freeze_snapshot(project, by=rita)
    outside = folder(snapshot).parent / "secret"
    outside.write_text("x")
    for name in ("../secret", "secret", "..", "", ".", "/etc/passwd", "preferences.jsonl/../x"):
        with pytest.raises(SnapshotError):
            snapshot_file(snapshot, name)


def test_two_frozen_at_the_same_moment_get_two_versions(project, rita, judgments, monkeypatch):
    """The second finds its version taken and takes the next."""
    freeze_snapshot(project, by=rita)
    saved = Snapshot.save
    seen = []

    def late(self, *args, **kwargs):
        if not seen:
            self.version = 1  # as if the other had been written since the version was chosen
        seen.append(self.version)
        return saved(self, *args, **kwargs)

    monkeypatch.setattr(Snapshot, "save", late)
    assert freeze_snapshot(project, by=rita).version == 2
    assert seen == [1, 2]


# --- Other people's tools ------------------------------------------------------------------------------


@pytest.fixture
def opened(project, rita, judgments, tmp_path, monkeypatch):
    """The snapshot as a researcher has it: the zip, unpacked."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    snapshot = freeze_snapshot(project, by=rita)
    place = tmp_path / "apollo-v1"
    with zipfile.ZipFile(io.BytesIO(b"".join(archive(snapshot)))) as packed:
        assert packed.testzip() is None
        packed.extractall(place)
    return place


def load(place, *args):
    from datasets import load_dataset

    cache = place.parent / "cache"
    return load_dataset(str(place), *args, split="train", cache_dir=str(cache))


def test_load_dataset_opens_the_folder_at_the_first_try(opened):
    pairs = load(opened)
    assert pairs.num_rows == 69
    assert {"prompt", "chosen", "rejected"} <= set(pairs.column_names)
    assert pairs[0]["prompt"][0]["role"] == "user"
    assert pairs[0]["chosen"][0]["role"] == "assistant"
    assert load(opened, "safety").num_rows == 69
    rankings = load(opened, "judgments")
    assert rankings[0]["ranks"]["helpfulness"] == [1, 2, 3, 4]


@pytest.fixture(scope="module")
def tiny():
    return tiny_llama()


def test_trls_reward_trainer_takes_it_unchanged(opened, tiny, tmp_path):
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    tokenizer, config = tiny
    config.num_labels = 1
    trainer = RewardTrainer(
        model=LlamaForSequenceClassification(config),
        args=RewardConfig(**once(tmp_path)),
        train_dataset=load(opened),
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.state.log_history[0]["loss"] > 0


def test_trls_reward_trainer_reads_the_margin(project, ada, grace, tiny, tmp_path):
    from datasets import load_dataset
    from transformers import LlamaForSequenceClassification
    from trl import RewardConfig, RewardTrainer

    for level, margin in ((4, 1.0), (1, 0.0)):
        judgment = judged(project, by=ada, ranks=(1, 2)).judgment
        told = {"level": level, "of": 4, "label": "", "margin": margin}
        judgment.strength = {"helpfulness": told, "safety": told}
        judgment.save()
    frozen = snapshot_file(freeze_snapshot(project, by=grace), "pairs-helpfulness.parquet")
    pairs = load_dataset("parquet", data_files=str(frozen), split="train", cache_dir=str(tmp_path))
    assert sorted(pairs["margin"]) == [0.0, 1.0]
    tokenizer, config = tiny
    config.num_labels = 1
    trainer = RewardTrainer(
        model=LlamaForSequenceClassification(config),
        args=RewardConfig(**once(tmp_path)),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    trainer.train()
    # ln 2 is the loss of equal scores; one of the two pairs asks for a difference of 1.
    assert trainer.state.log_history[0]["loss"] > 0.8


def test_trls_dpo_trainer_takes_it_unchanged(opened, tiny, tmp_path):
    from transformers import LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    tokenizer, config = tiny
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    trainer = DPOTrainer(
        model=str(tmp_path / "model"),
        args=DPOConfig(**once(tmp_path)),
        train_dataset=load(opened, "safety"),
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 1
    assert trainer.state.log_history[0]["loss"] == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.skipif(not os.environ.get("REAL_DATA"), reason="REAL_DATA names no folder of files")
@pytest.mark.parametrize(
    ("name", "axis", "imported", "pairs"),
    [
        ("hh_rlhf_harmless/pairs_dev.jsonl.gz", "safety", 1426, 1426),
        ("oasst_en_100_trees/en_100_tree.jsonl.gz", "helpfulness", 212, 754),
    ],
)
def test_real_comparisons_survive_the_way_in_and_out(
    project, rita, tmp_path, name, axis, imported, pairs
):
    from annotation.data.imports import import_comparisons

    report = import_comparisons(
        project,
        Path(os.environ["REAL_DATA"]) / name,
        axis=axis,
        source={"name": name, "licence": "MIT"},
        by=rita,
        sign_off=True,
    )
    assert report.n_imported == imported
    snapshot = freeze_snapshot(project, by=rita)
    assert snapshot.counts["pairs"][axis] == pairs
    found = load(folder(snapshot))
    assert found.num_rows == pairs
    assert Source.objects.get().n_rows == report.n_rows
