"""Rounds of training, their jobs and workers, the models that they make, and the models' scores."""

import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from annotation.lib.heartbeat import stale_before
from annotation.models import Batch, Event, Project, Snapshot
from rlhf.estimates import Estimate, with_interval


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    def promoted_policies(self, project: Project) -> "CheckpointQuerySet":
        """The policies that were promoted and not rolled back, newest first."""
        promoted = self.filter(
            project=project, kind=Checkpoint.Kind.POLICY, state=Checkpoint.State.PROMOTED
        )
        return promoted.order_by("-created_at", "-pk")

    def current_policy(self, project: Project) -> "Checkpoint | None":
        """The policy that the next round starts from: the one promoted last."""
        return self.promoted_policies(project).first()


class Checkpoint(models.Model):
    """One version of a model: a folder of safetensors, its parent model and its data."""

    class Kind(models.TextChoices):
        POLICY = "policy"
        REWARD_MODEL = "reward_model", "reward model"
        TEST_REWARD_MODEL = "test_reward_model", "test reward model"

    class State(models.TextChoices):
        CANDIDATE = "candidate"
        PROMOTED = "promoted"
        REFUSED = "refused"
        RETIRED = "retired"

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="checkpoints")
    kind = models.CharField(max_length=20, choices=Kind.choices)
    name = models.CharField(max_length=120)
    state = models.CharField(max_length=10, choices=State.choices, default=State.CANDIDATE)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children"
    )
    round = models.ForeignKey(
        "rlhf.Round", null=True, blank=True, on_delete=models.SET_NULL, related_name="checkpoints"
    )
    snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="checkpoints"
    )
    path = models.CharField(max_length=500, help_text="A folder, or the name of a model on a hub.")
    sha256 = models.CharField(max_length=64, blank=True)
    n_bytes = models.BigIntegerField(default=0)
    n_parameters = models.BigIntegerField(default=0)
    config = models.JSONField(default=dict, blank=True)
    metrics = models.JSONField(default=dict, blank=True)
    code_version = models.CharField(max_length=60, blank=True)
    created_at = models.DateTimeField(default=timezone.now)

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["project", "kind", "-created_at"])]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.project.slug, self.uid])

    @property
    def understood(self) -> dict[str, Any]:
        """What the inspection of a model of one's own found (docs/formats.md); {} for all others."""
        result = self.config.get("understood")
        return result if isinstance(result, dict) else {}

    @property
    def root(self) -> "Checkpoint":
        """The base policy that this model descends from."""
        model = self
        while model.parent is not None:
            model = model.parent
        return model

    @property
    def response_source(self) -> str:
        """`Response.source` of the responses that this policy wrote; annotators never see it."""
        return f"policy {self.uid}"


class RoundQuerySet(models.QuerySet["Round"]):
    def live(self, project: Project) -> "Round | None":
        """The project's round that has not ended yet, if there is one."""
        return self.filter(project=project).exclude(state__in=Round.ENDED).first()


class Round(models.Model):
    """One iteration of the loop. Round 0 builds and measures the base policy; a round with
    MODEL_PLAN takes a model of one's own, which the next round starts from.

    `plan` lists the round's stages; `state` is the current stage, or how the round ended. `config`
    is frozen at launch: `{stage: {field: value}}`, and `round` with the round's own settings.
    """

    class State(models.TextChoices):
        PREFLIGHT = "preflight", "pre-flight"
        BASE = "base", "base policy"
        INSPECTION = "inspection", "your model"
        SFT = "sft", "fine-tuning"
        GENERATE = "generate"
        ANNOTATE = "annotate"
        SNAPSHOT = "snapshot"
        REWARD_MODEL = "reward_model", "reward model"
        PPO = "ppo", "PPO"
        EVALUATE = "evaluate"
        VERDICT = "verdict"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    FULL_PLAN: ClassVar[list[str]] = [
        "generate",
        "annotate",
        "snapshot",
        "reward_model",
        "ppo",
        "evaluate",
        "verdict",
    ]
    BASE_PLAN: ClassVar[list[str]] = ["base", "evaluate"]
    MODEL_PLAN: ClassVar[list[str]] = ["inspection", "evaluate"]
    REWARD_ONLY_PLAN: ClassVar[list[str]] = ["snapshot", "reward_model"]
    ENDED: ClassVar[tuple[str, ...]] = (State.DONE, State.FAILED, State.CANCELLED)

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=14, choices=State.choices, default=State.PREFLIGHT)
    plan = models.JSONField(default=list)
    config = models.JSONField(default=dict)
    seed = models.PositiveIntegerField(default=0)
    batch = models.OneToOneField(
        Batch, null=True, blank=True, on_delete=models.PROTECT, related_name="round"
    )
    snapshot = models.ForeignKey(
        Snapshot, null=True, blank=True, on_delete=models.PROTECT, related_name="rounds"
    )
    start_policy = models.ForeignKey(
        Checkpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="started_rounds"
    )
    policy = models.ForeignKey(
        Checkpoint, null=True, blank=True, on_delete=models.PROTECT, related_name="result_of"
    )
    failed_stage = models.CharField(max_length=14, blank=True)
    verdict = models.CharField(
        max_length=10,
        blank=True,
        choices=[("promoted", "promoted"), ("refused", "refused")],
    )
    verdict_note = models.TextField(blank=True)
    verdict_evidence = models.JSONField(
        default=dict, blank=True, help_text="What the gate proposed, as `verdict.Proposal`."
    )
    verdict_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    holds = models.JSONField(
        default=list,
        blank=True,
        help_text="[{stage, doubts, at, decision, by, decided_at, note}]: when the round waited for "
        "a person because of doubts about its reward models, and what the person decided.",
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    launched_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    stage_times = models.JSONField(
        default=dict, help_text="{stage: [started, ended]} in ISO 8601; ended may be null."
    )

    objects = RoundQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        constraints = [
            models.UniqueConstraint(fields=["project", "number"], name="one_round_per_number")
        ]

    def __str__(self) -> str:
        return f"Round {self.number}" if self.number else "Base policy"

    def get_absolute_url(self) -> str:
        return reverse("round", args=[self.project.slug, self.number])

    @property
    def has_ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def open_hold(self) -> "dict[str, Any] | None":
        """The doubts for which the round waits for a person, if it does."""
        last = self.holds[-1] if self.holds else None
        return last if last and not last["decision"] and last["stage"] == self.state else None

    @property
    def verdict_name(self) -> str:
        return {"refused": "rejected"}.get(self.verdict, self.verdict)

    def newest_job(self, stage: str) -> "Job | None":
        return self.jobs.filter(stage=stage).order_by("-created_at", "-id").first()

    @property
    def has_simulated_judgments(self) -> bool:
        """True if programs made some of the judgments that the round's models are trained on."""
        return bool(self.snapshot and self.snapshot.counts.get("simulated_annotators"))

    @property
    def events(self) -> models.QuerySet[Event]:
        """The audit log's lines about this round, newest first."""
        name = str(self)
        about = Q(target=name) | Q(target__startswith=f"{name} ") | Q(target__startswith=f"{name}:")
        about |= Q(target__endswith=f" of {name}") | Q(data__round=self.number)
        return (
            Event.objects.filter(about, project_id=self.project_id)
            .select_related("actor")
            .order_by("-at", "-id")
        )

    @classmethod
    def stage_name(cls, stage: str) -> str:
        """A stage's name on the pages. `selection` and `calibrate` are stages of jobs, but never
        a round's state."""
        if stage == cls.State.PPO:
            return "PPO"
        return str(dict(cls.State.choices).get(stage, stage.replace("_", " "))).lower()

    def newest_model(self, kind: str) -> Checkpoint | None:
        """The newest model of a kind that this round made."""
        return self.checkpoints.filter(kind=kind).order_by("-created_at", "-pk").first()

    def last_done(self, stage: str) -> "Job | None":
        """The stage's newest job that is done; its run folder holds the stage's output."""
        done = self.jobs.filter(stage=stage, state=Job.State.DONE)
        return done.order_by("-created_at", "-pk").first()


class JobQuerySet(models.QuerySet["Job"]):
    def claimable(self) -> "JobQuerySet":
        """Jobs that are due, and running jobs whose lease has expired."""
        now = timezone.now()
        return self.filter(
            Q(state=Job.State.QUEUED, not_before__lte=now)
            | Q(state=Job.State.RUNNING, lease_until__lt=now)
        )

    def expired(self) -> "JobQuerySet":
        """Running jobs whose lease has expired."""
        return self.filter(state=Job.State.RUNNING, lease_until__lt=timezone.now())


class Job(models.Model):
    """One stage's work. This row is authoritative; a broker's message only wakes a worker.

    `epoch` is the fencing token: every claim adds one, and a worker with an outdated epoch can't
    write. Each claim has its own run folder, `<job uid>/<epoch>`.
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        FAILED = "failed"
        CANCELLED = "cancelled"

    ENDED: ClassVar[tuple[str, ...]] = (State.DONE, State.FAILED, State.CANCELLED)

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="jobs")
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="jobs")
    stage = models.CharField(max_length=14)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    epoch = models.PositiveIntegerField(default=0)
    attempt = models.PositiveSmallIntegerField(
        default=0, help_text="Attempts that ended badly or were lost; a stop by a person is none."
    )
    owner = models.CharField(max_length=120, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(default=timezone.now)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    process_id = models.PositiveIntegerField(null=True, blank=True)
    progress = models.JSONField(default=dict, blank=True)
    metrics = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True, help_text="Why it ended as it did, in one sentence.")
    exit_code = models.IntegerField(null=True, blank=True)
    input_sha256 = models.CharField(max_length=64, blank=True)
    created_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    objects = JobQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["state", "not_before"])]

    def __str__(self) -> str:
        return f"{self.stage} of {self.round}"

    @property
    def stage_name(self) -> str:
        return Round.stage_name(self.stage)

    @property
    def badge(self) -> str:
        """The modifier of the badge in site.css for the job's state; "" for a plain badge."""
        if not self.has_ended:
            return "live"
        return {self.State.DONE: "go", self.State.FAILED: "no-go"}.get(self.State(self.state), "")

    @property
    def run_dir(self) -> Path:
        """This claim's run folder.

        A later claim starts from a copy of the last complete checkpoint, so that a process that
        outlives its lease cannot write into the files of the next claim.
        """
        return Path(settings.RUNS_DIR) / str(self.uid) / str(self.epoch)

    @property
    def has_ended(self) -> bool:
        return self.state in self.ENDED

    @property
    def is_lost(self) -> bool:
        """True if the lease has expired: the next free worker claims the job."""
        if self.state != self.State.RUNNING or self.lease_until is None:
            return False
        return self.lease_until < timezone.now()

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()


class Score(models.Model):
    """One metric of an evaluation: the value with its interval and sample size.

    `judge` is "model" (the round's reward model), "gold" (the simulated annotators' rubric, demo
    projects only) or "human". `checkpoint` is the policy that was measured: the round's own, or one
    of its opponents.
    """

    class Judge(models.TextChoices):
        MODEL = "model", "reward model"
        GOLD = "gold", "rubric (simulated)"
        HUMAN = "human"

    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="scores")
    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="scores")
    checkpoint = models.ForeignKey(Checkpoint, on_delete=models.CASCADE, related_name="scores")
    judge = models.CharField(max_length=6, choices=Judge.choices)
    metric = models.CharField(max_length=40, help_text="helpfulness, safety, win_rate_vs_base, …")
    temperature = models.FloatField(default=1.0)
    category = models.CharField(max_length=60, blank=True)
    value = models.FloatField()
    low = models.FloatField(null=True, blank=True)
    high = models.FloatField(null=True, blank=True)
    n = models.PositiveIntegerField(default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["round", "checkpoint", "judge", "metric", "temperature", "category"],
                name="one_score_each",
            )
        ]

    def __str__(self) -> str:
        return f"{self.metric} {self.value:.3f} (n={self.n}, {self.judge})"

    @property
    def estimate(self) -> Estimate:
        """The value with its interval and n."""
        return with_interval(self.value, self.low, self.high, self.n)


class WorkerQuerySet(models.QuerySet["Worker"]):
    def online(self, queue: str, *, idle: bool = False) -> "list[Worker]":
        """The workers of a queue that reported within ONLINE_WITHIN; only those without a job if `idle`."""
        online = self.filter(seen_at__gte=stale_before(Worker.ONLINE_WITHIN))
        if idle:
            online = online.filter(job=None)
        return [worker for worker in online if queue in worker.queues.split(",")]

    def compute_machine(self) -> dict[str, Any]:
        """The machine of an online worker that computes (`rlhf/training/machine.py`), one with a GPU
        first; {} if none has reported it."""
        machines = [w.machine for w in self.online("gpu") if w.machine.get("device")]
        machines.sort(key=lambda machine: machine.get("kind") != "cuda")
        return machines[0] if machines else {}


class Worker(models.Model):
    """A process that claims jobs: when it last reported, and which job it runs."""

    name = models.CharField(max_length=120, unique=True)
    queues = models.CharField(max_length=120, blank=True)
    version = models.CharField(max_length=60, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(default=timezone.now)
    job = models.ForeignKey(Job, null=True, blank=True, on_delete=models.SET_NULL, related_name="+")
    machine = models.JSONField(
        default=dict, blank=True, help_text="What its machine has: `rlhf/training/machine.py`."
    )

    ONLINE_WITHIN: ClassVar[timedelta] = timedelta(seconds=30)

    objects = WorkerQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name


class Calibration(models.Model):
    """What a model costs on a device: `figures` is the result of the stage `calibrate`
    (docs/formats.md). A later measurement of the same replaces it."""

    model_key = models.CharField(max_length=64, help_text="`model_key` of training/model_files.py.")
    device = models.CharField(max_length=200)
    dtype = models.CharField(max_length=16)
    versions = models.CharField(max_length=120, blank=True, help_text="Of torch and transformers.")
    figures = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["model_key", "device", "dtype"], name="one_calibration_each"
            )
        ]

    def __str__(self) -> str:
        return f"{self.dtype} on {self.device}"


class PolicyServer(models.Model):
    """The server of one policy for live dialogues: the desired state and the actual state.

    People set `is_wanted`. The keeper, the process `manage.py serve_policies`, writes all other
    fields; `seen_at` is its heartbeat, once a second.
    """

    class State(models.TextChoices):
        OFF = "off"
        STARTING = "starting"
        READY = "ready"
        FAILED = "failed"

    checkpoint = models.OneToOneField(Checkpoint, on_delete=models.CASCADE, related_name="server")
    is_wanted = models.BooleanField(default=False)
    wanted_at = models.DateTimeField(default=timezone.now)
    sleeps = models.BooleanField(
        default=False, help_text="Stopped because nobody used it; the next person wakes it."
    )
    state = models.CharField(max_length=8, choices=State.choices, default=State.OFF)
    reason = models.CharField(max_length=300, blank=True)
    owner = models.CharField(max_length=120, blank=True)
    seen_at = models.DateTimeField(null=True, blank=True)
    port = models.PositiveIntegerField(null=True, blank=True)
    process_id = models.PositiveIntegerField(null=True, blank=True)
    starts = models.PositiveSmallIntegerField(default=0, help_text="Since it was last wanted.")
    started_at = models.DateTimeField(null=True, blank=True)
    used_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"server of {self.checkpoint}"

    @property
    def folder(self) -> Path:
        """The server's folder: links to the checkpoint's files, and the server's log."""
        return Path(settings.RUNS_DIR) / "serving" / str(self.checkpoint.uid)
