"""The walk: rounds without a browser, by the same worker, jobs and subprocesses that people's rounds have."""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone

from annotation.models import Project, User
from rlhf import own_models, rounds, simulation
from rlhf.demo import demo_accounts, demo_project, everyday_project, write_demonstrations
from rlhf.errors import RoundError
from rlhf.models import Round
from rlhf.preflight import preflight
from rlhf.round_config import default_config
from rlhf.verdict import propose_verdict
from rlhf.walk_report import walk_report
from rlhf.workers import tasks


class WalkError(Exception):
    """Why the walk stopped, in one sentence for a person."""


@dataclass
class Walk:
    """A number of rounds, one after the other.

    `on_wait` is called several times a second while a stage runs, `on_line` with each verdict.
    """

    n_rounds: int
    preset: str
    seed: int
    model: str = ""
    """The path of a language model that answers everyday questions; "": the base policy of the small
    world is built."""
    on_wait: Callable[[], None] = lambda: None
    on_line: Callable[[str], None] = lambda line: None
    continue_in_doubt: bool = False
    """Let a round go on whose reward models are in doubt; else the walk ends there."""
    project: Project = field(init=False)
    judged: tuple[int, int] = field(default=(0, 0), init=False)

    def run(self) -> dict[str, Any]:
        """Run the base round and all others; the report of docs/walk.md. WalkError when a stage fails."""
        now = timezone.now()
        slug = f"walk-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        make_project = everyday_project if self.model else demo_project
        self.project = make_project(slug, f"Walk of {now:%Y-%m-%d %H:%M} (simulated)")
        demo_accounts(self.project)
        if self.model:
            write_demonstrations(self.project)
        by = User.objects.get(username="grace")
        options: dict[str, Any] = {"preset_name": self.preset, "seed": self.seed}
        if self.model:
            tasks.wake(own_models.inspect_model(self.project, by, self.model, **options))
            self._use_model(by)
        else:
            tasks.wake(rounds.open_base_round(self.project, by, **options))
        self._wait_for(0, Round.State.DONE)
        for number in range(1, self.n_rounds + 1):
            self._round(number, by)
        return walk_report(self.project, preset=self.preset, seed=self.seed)

    def _use_model(self, by: User) -> None:
        """Wait until the model is read, and use it."""
        round = self._wait_for(0, Round.State.INSPECTION)
        while round.policy is None:
            self.on_wait()
            time.sleep(0.2)
            round = self._wait_for(0, Round.State.INSPECTION)
        try:
            tasks.wake(own_models.use_model(round, by, fine_tune=True))
        except RoundError as error:
            raise WalkError(f"The model can't be used: {error}") from None

    def _round(self, number: int, by: User) -> None:
        config = default_config(self.project, self.preset)
        warnings = [
            check.key for check in preflight(self.project, config) if check.verdict == "warning"
        ]
        try:
            job = rounds.open_round(self.project, by=by, config=config, acknowledged=warnings)
        except RoundError as error:
            raise WalkError(f"Round {number} can't be launched: {error}") from None
        tasks.wake(job)
        round = self._wait_for(number, Round.State.ANNOTATE)
        assert round.batch is not None
        needed = sum(round.batch.comparisons.values_list("needed", flat=True))

        def on_judgment(n: int) -> None:
            self.judged = (n, needed)
            if n % 5 == 0:
                self.on_wait()

        simulation.judge_batch(round.batch, on_judgment=on_judgment)
        self.judged = (0, 0)
        tasks.wake(rounds.close_annotation(round, by))
        round = self._wait_for(number, Round.State.VERDICT)
        proposal = propose_verdict(round)
        reasons = " ".join(proposal.reasons)
        rounds.give_verdict(round, proposal.verdict, reasons, by)
        self.on_line(f"Round {number}: {proposal.verdict}. {reasons}")

    def _decide(self, round: Round) -> None:
        """What the walk does about reward models in doubt; WalkError unless it may go on."""
        doubts = " ".join(round.open_hold["doubts"]) if round.open_hold else ""
        if not self.continue_in_doubt:
            raise WalkError(
                f"{round} waits, because its reward models are in doubt. {doubts} Take a larger preset, "
                "or let it go on with --continue-in-doubt."
            )
        self.on_line(f"{round} goes on with reward models in doubt. {doubts}")
        by = User.objects.get(username="grace")
        tasks.wake(rounds.continue_in_doubt(round, "The walk was started with this option.", by))

    def _wait_for(self, number: int, state: str) -> Round:
        while True:
            round = Round.objects.select_related("batch", "project", "policy").get(
                project=self.project, number=number
            )
            if round.state == state:
                return round
            if round.open_hold:
                self._decide(round)
            if round.has_ended:
                job = round.jobs.order_by("-created_at", "-pk").first()
                stage = f"{round.failed_stage or round.state} of {round}"
                reason = job.reason if job else "no job was made"
                log = f" Its log: {job.run_dir / 'log.txt'}" if job else ""
                raise WalkError(f"{stage} ended as {round.state}: {reason}{log}")
            self.on_wait()
            time.sleep(0.2)
