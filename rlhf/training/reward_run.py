"""The run around the training of reward models: resuming, checkpoints, metrics, skipped updates."""

import time
from pathlib import Path

from safetensors.torch import load_file, save_file

from rlhf.training import parallel
from rlhf.training.configs import RewardModelConfig
from rlhf.training.reward_checkpoint import RewardCheckpoint
from rlhf.training.reward_learner import Learner
from rlhf.training.rundir import log
from rlhf.training.rundir.checkpoints import find_checkpoint, save_checkpoint
from rlhf.training.rundir.errors import InputError, Stopped
from rlhf.training.rundir.process import StopRequest
from rlhf.training.rundir.reports import MetricsWriter, Progress

MAX_SKIPPED_IN_A_ROW = 20
"""Consecutive updates that are not finite, after which the run fails."""


class RewardRun:
    """The state that all models of a run share: metrics, progress, the checkpoint, the request to
    stop and the processes that train together."""

    def __init__(
        self,
        run_dir: Path,
        config: RewardModelConfig,
        stop: StopRequest,
        total: int,
        processes: parallel.Group = parallel.Group(),  # noqa: B008 - it never changes
    ) -> None:
        self.run_dir, self.config, self.stop, self.total = run_dir, config, stop, total
        self.processes = processes
        self.progress = Progress(run_dir, writes=processes.is_main_process)
        self.began = self.saved_at = time.monotonic()
        self.finished: list[Path] = []
        """The weights of the models that are trained, in order. They are on the disk alone, so that
        the memory is that of one model."""
        self.updates: list[int] = []
        """How many updates each model takes, the one that is being trained last."""
        self.skipped: list[int] = []
        """How many updates of each model were skipped, because they were not finite."""
        self.local_fraction = 1.0
        """The fraction of the trunk that this process holds while it is trained."""
        self.n_updates: dict[str, int] = {}
        """For `result.json`: the updates that the train-RM and the test-RM learned by."""
        self.warnings: list[str] = []
        self.label_smoothing: dict[str, float] = {}
        """For `result.json`: what was measured where smoothing is "agreement"."""
        self.step = self.resumed_after = 0
        self.checkpoint: RewardCheckpoint | None = None
        if (folder := find_checkpoint(run_dir)) is not None:
            self.checkpoint = RewardCheckpoint.read(folder)
            self.step = self.resumed_after = self.checkpoint.total_steps
            self.skipped = self.checkpoint.skipped
        processes.barrier()  # until all have read the checkpoint
        self.metrics = MetricsWriter(run_dir, resume_after=self.step)

    def begin_model(self, name: str, learner: Learner, *, updates: int) -> int:
        """Begin the next model of the train-RM or test-RM (`name`); returns how many of its updates
        are done: all of a model that a killed run had finished, some of the one it was training."""
        self.name, self.learner, self._in_a_row = name, learner, 0
        self._show()
        self.local_fraction = min(self.local_fraction, learner.local_fraction)
        self.updates.append(updates)
        if len(self.skipped) == len(self.finished):
            self.skipped.append(0)
        checkpoint = self.checkpoint
        if checkpoint is None:
            return 0
        if len(self.finished) < len(checkpoint.finished):
            learner.load(load_file(checkpoint.finished[len(self.finished)]))
            return updates
        learner.load(checkpoint.weights)
        parallel.load_optimizer_state(learner.optimizer, checkpoint.optimizer)
        self.checkpoint = None
        return checkpoint.step

    def record(
        self, update: int, not_finite: list[str], *, loss: float, accuracy: float, grad_norm: float
    ) -> None:
        """Metrics and progress of one update; `InputError` after too many skipped ones in a row.

        `not_finite` names the numbers because of which this update was skipped.
        """
        causes = ", ".join(not_finite)
        self._in_a_row = self._in_a_row + 1 if not_finite else 0
        if not_finite:
            self.skipped[len(self.finished)] += 1
            log.warning(f"{self.name}-RM, update {update + 1}: skipped, not finite: {causes}")
        self.step += 1
        if self.processes.is_main_process:
            self._write(loss=loss, accuracy=accuracy, grad_norm=grad_norm)
        if self._in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise InputError(
                f"{self._in_a_row} updates in a row of the {self.name}-RM were not finite ({causes}); "
                "start again with a lower learning_rate, or look at the rankings' weights."
            )

    def _write(self, **metrics: float) -> None:
        named = {f"{self.name}_{k}": v for k, v in metrics.items()}
        self.metrics.write(self.step, **named, skipped_updates=sum(self.skipped))
        self._show()

    def _show(self) -> None:
        """Progress by updates. The time left is that of the updates, once there is one."""
        done, total = self.step - self.resumed_after, max(self.total, self.step)
        left = (time.monotonic() - self.began) / done * (total - self.step) if done else None
        self.progress.of_run(self.step, total, "updates", f"{self.name}-RM", left)

    def save_if_due(self, updates_done: int) -> None:
        """Save a checkpoint if the last one is old or a stop is requested; then raise `Stopped`. A
        collective: all processes call it."""
        stopping = self.processes.any(self.stop.requested)
        due = time.monotonic() - self.saved_at >= self.config.checkpoint_seconds
        if stopping or self.processes.any(due and self.processes.is_main_process):
            self._save(updates_done)
        if stopping:
            parallel.destroy_process_group(self.processes)
            raise Stopped

    def _save(self, updates_done: int) -> None:
        weights = self.learner.state()
        optimizer = parallel.optimizer_state(self.learner.optimizer)
        if self.processes.is_main_process:
            checkpoint = RewardCheckpoint(
                updates_done, self.step, weights, optimizer, self.finished, self.skipped
            )
            save_checkpoint(self.run_dir, checkpoint.write)
        self.saved_at = time.monotonic()

    def end_model(self) -> None:
        """`InputError` if no update of the model was finite."""
        updates = self.updates[-1]
        if self.skipped[len(self.finished)] == updates:
            raise InputError(
                f"Of the {self.name}-RM not one of the {updates} updates that it was to learn by was "
                "finite; log.txt names what was not. Start again with a lower learning_rate, or look "
                "at the rankings' weights."
            )
        weights = self.learner.state()
        file = self.run_dir / f"trained-{len(self.finished)}.safetensors"
        if self.processes.is_main_process:
            file.unlink(missing_ok=True)  # a checkpoint may hold a link to it
            save_file(weights, file)
        self.finished.append(file)

    def fewest_updates(self, first: int) -> int:
        """The fewest updates that a model from number `first` learned by, without the skipped ones."""
        counts = zip(self.updates[first:], self.skipped[first:], strict=False)
        return min(total - skipped for total, skipped in counts)

    def warn_of_skipped(self, name: str, first: int) -> None:
        """A warning if updates of the train-RM's or test-RM's models, from number `first`, were
        skipped."""
        if skipped := sum(self.skipped[first : len(self.updates)]):
            self.warnings.append(
                f"{skipped} of {sum(self.updates[first:])} updates of the {name}-RM were left out, "
                "because they were not finite; log.txt names what was not."
            )

    def close(self) -> None:
        """At the end of the run, whose result has the models."""
        self.metrics.close()
        for file in self.finished:
            file.unlink(missing_ok=True)
