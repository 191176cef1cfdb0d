"""Help for tests of the machine side: a project that can open a round, programs, real workers."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from annotation.models import Prompt
from rlhf import rounds
from rlhf.models import Checkpoint, Job, Round, Score, Worker
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from rlhf.workers.next_job import run_next_job
from tests.factories import PromptFactory, SourceFactory

# See tests/annotation/judge/test_concurrency.py: on PostgreSQL emptying the tables must cascade.
real_transactions = pytest.mark.django_db(
    transaction=True,
    available_apps=settings.INSTALLED_APPS if connection.vendor == "postgresql" else None,
)
ROOT = Path(__file__).resolve().parents[2]
WARNINGS = (
    "ranking", "ppo", "watch", "heldout", "sources", "updates", "workers", "memory", "disk",
    "estimate", "risks",
)  # fmt: skip


def ready(project, *, n=12, policy="policies/base"):
    """A project with prompts in every split and a promoted policy to start from."""
    source = SourceFactory(project=project)
    for split, size in (("train", n), ("eval", 3), ("heldout", 6)):
        for i in range(size):
            PromptFactory(
                project=project,
                source=source,
                split=split,
                risk=Prompt.Risk.HARMFUL if i % 3 == 0 else Prompt.Risk.HARMLESS,
            )
    return Checkpoint.objects.create(
        project=project,
        kind=Checkpoint.Kind.POLICY,
        name="base policy",
        state=Checkpoint.State.PROMOTED,
        path=policy,
    )


def small_config(project):
    """The smallest round: few prompts, one step."""
    config = default_config(project, "ci")
    config["round"] |= {"ranking_prompts": 6, "reference_prompts": 3, "overlap": 1}
    config["round"] |= {"ppo_prompts": 4, "watch_prompts": 2, "heldout_prompts": 4}
    config["ppo"]["rollout"]["prompts_per_step"] = 4
    config["ppo"]["optimizer"]["minibatch_size"] = 4
    return config


def launch(project, by, **changes):
    """Open a round with the small configuration; its first job."""
    config = small_config(project)
    config["round"] |= changes
    return rounds.open_round(project, by=by, config=config, acknowledged=WARNINGS)


def program(how="well"):
    """A launcher for tests/rlhf/program.py instead of the training stage."""
    return lambda job, run_dir: [sys.executable, "-m", "tests.rlhf.program", str(run_dir), how]


def work(how="well", *, owner="hal", queue="gpu", **options):
    """One worker's look at the queue."""
    return run_next_job(queue, owner=owner, command=program(how), **options)


def wait_until(condition, seconds=20.0, every=0.05):
    """The first true answer; AssertionError when there is none in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := condition():
            return answer
        time.sleep(every)
    raise AssertionError(f"Still waiting after {seconds} s for {condition}.")


def alive(pid):
    """Whether a process runs (a zombie that nobody has waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def database_url():
    """The test database as the environment variable has it, for processes of the test's own."""
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{given['NAME']}"
    where = f"{given['HOST'] or 'localhost'}:{given['PORT'] or 5432}"
    return f"postgres://{given['USER']}:{given['PASSWORD']}@{where}/{given['NAME']}"


def own_data_folder(given_settings, folder):
    """Point this process at the folders that the processes of `environment(folder)` use."""
    for name, part in (
        ("RUNS_DIR", "runs"),
        ("SNAPSHOTS_DIR", "snapshots"),
        ("CACHE_DIR", "cache"),
        ("QUEUE_DIR", "queue"),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        setattr(given_settings, name, folder / part)


def environment(folder, **more):
    return {
        **os.environ,
        "GROUND_CONTROL_DATA": str(folder),
        "DATABASE_URL": database_url(),
        "TRAINING_THREADS": "1",
        **more,
    }


@contextlib.contextmanager
def celery_worker(folder, queue="gpu", **more):
    """A real worker process; killed with its children when the block ends."""
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "config", "worker", "-Q", queue]
    command += ["-n", f"test-{time.time_ns()}@%h", "--without-gossip", "--without-mingle"]
    with (folder / f"worker-{time.time_ns()}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(folder, **more), stdout=log, stderr=log,
            process_group=0,
        )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


def a_worker(name="hal", queues="gpu", job=None):
    return Worker.objects.create(name=name, queues=queues, job=job, seen_at=timezone.now())


def checks(project, config=None):
    return {c.key: c for c in preflight(project, config or small_config(project))}


def at_stage(project, stage, base, **fields):
    """A round that stands at a stage of the full plan."""
    return Round.objects.create(
        project=project,
        number=1,
        state=stage,
        plan=Round.FULL_PLAN,
        config=small_config(project),
        start_policy=base,
        launched_at=timezone.now(),
        stage_times={stage: [timezone.now().isoformat(), None]},
        **fields,
    )


BEFORE = {"violation_rate": (0.3, 0.25, 0.35), "over_refusal_rate": (0.05, 0.02, 0.08)}
BETTER = {
    "win_rate_vs_previous": (0.8, 0.74, 0.86),
    "violation_rate": (0.02, 0.0, 0.05),
    "over_refusal_rate": (0.04, 0.02, 0.07),
}


def scored(project, base, judge, before, after):
    """Round 0 and 1 at the verdict, with these figures: {metric: (value, low, high)}."""
    base_round = Round.objects.create(project=project, number=0, state="done", plan=[])
    base.round = base_round
    base.save()
    base_round.policy = base
    base_round.save()
    round = at_stage(project, "verdict", base)
    round.policy = Checkpoint.objects.create(
        project=project, kind="policy", name="round 1 policy", parent=base, round=round, path="y"
    )
    round.save()
    for measured, policy, figures in ((base_round, base, before), (round, round.policy, after)):
        job = Job.objects.create(project=project, round=measured, stage="evaluate", state="done")
        for metric, (value, low, high) in figures.items():
            Score.objects.create(
                round=measured, job=job, checkpoint=policy, judge=judge, metric=metric, value=value,
                low=low, high=high, n=150,
            )  # fmt: skip
    return round


def in_threads(n, act):
    """Call `act(i)` in n threads that start at the same moment; what they returned, or raised."""
    gate, results = threading.Barrier(n), [None] * n

    def body(i):
        try:
            gate.wait()
            results[i] = act(i)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[i] = error
        finally:
            connection.close()

    threads = [threading.Thread(target=body, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def expire(job):
    """As if the worker had been silent for longer than its lease."""
    Job.objects.filter(pk=job.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
