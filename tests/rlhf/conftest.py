import pytest
from django.db import connection, connections

from annotation.models import Batch
from rlhf.models import Checkpoint
from rlhf.workers import tasks
from tests.factories import ComparisonFactory, PromptFactory, SourceFactory
from tests.rlhf import machine
from tests.rlhf.factories import checkpoint, flight, measured, new_round, passed


@pytest.fixture
def mission(project, grace):
    """Base, two promoted rounds, a third in PPO (tests/rlhf/factories.py)."""
    return flight(project, grace)


@pytest.fixture
def awake(monkeypatch):
    """The queues that were woken; no broker is used."""
    queues = []
    monkeypatch.setattr(tasks, "wake_queue", queues.append)
    return queues


@pytest.fixture
def ready(project, grace):
    """A measured base policy and enough prompts to launch a tiny round."""
    base_round = new_round(project, 0)
    base = checkpoint(project, "base policy", round=base_round, state="promoted")
    base.n_bytes = 0  # a model on a hub: nothing has to be on this disk
    base.save()
    base_round.policy = base
    base_round.save()
    measured(base_round, base, 0)
    source = SourceFactory(project=project)
    for split, n in (("train", 12), ("eval", 3), ("heldout", 3)):
        for _ in range(n):
            PromptFactory(project=project, source=source, split=split)
    return project


@pytest.fixture
def annotating(ready):
    round = new_round(ready, 1, state="annotate", start=ready.checkpoints.first())
    round.batch = Batch.objects.create(project=ready, name="Round 1", state="open")
    round.save()
    passed(round, generate=9, annotate=None)
    for judged in (1, 1, 0):
        ComparisonFactory(batch=round.batch, judged=judged, taken=judged, is_free=not judged)
    return round


@pytest.fixture
def measured_round(ready):
    start = Checkpoint.objects.get(project=ready, name="base policy")
    round = new_round(ready, 1, state="verdict", start=start)
    policy = checkpoint(ready, "round 1 policy", round=round, parent=start)
    round.policy = policy
    round.save()
    passed(round, evaluate=20, verdict=None)
    measured(round, policy, 1)
    return round


@pytest.fixture
def policy(project, tmp_path):
    folder = tmp_path / "policy"
    folder.mkdir()
    (folder / "config.json").write_text('{"max_position_embeddings": 200, "eos_token_id": 1}')
    return Checkpoint.objects.create(
        project=project, kind="policy", name="base", path=str(folder), n_parameters=1000
    )


@pytest.fixture
def base(project, ada):
    return machine.ready(project)


@pytest.fixture
def cut(monkeypatch):
    """Cuts this thread's connection for good, as a restart of the database does."""

    def now():
        connection.ensure_connection()
        connection.connection.close()
        # PostgreSQL's notices; SQLite's, which nothing can cut, doesn't ask.
        monkeypatch.setattr(connections["default"].__class__, "is_usable", _is_whole)

    def _is_whole(wrapper):
        try:
            wrapper.connection.execute("SELECT 1")
        except wrapper.Database.Error:
            return False
        return True

    return now
