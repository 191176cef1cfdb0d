"""A project in mid-flight: the base policy, two finished rounds and a third in PPO.

Figures are made up but hang together: intervals hold their values, curves bend as they do in a real
run, the run folders are laid out as docs/formats.md says.
"""

import math
import random
from datetime import timedelta

from django.utils import timezone

from annotation.models import Batch, Event, Project, Snapshot
from rlhf.models import Checkpoint, Job, Round, Score, Worker
from rlhf.training import rundir
from rlhf.training.rundir.files import write_jsonl
from rlhf.training.rundir.reports import MetricsWriter, write_progress, write_result

CATEGORIES = {
    "how-to": "harmless",
    "facts": "harmless",
    "small talk": "harmless",
    "harm": "harmful",
}
CONFIG = {
    "round": {"ranking_prompts": 360, "harmful_share": 0.4, "overlap": 1},
    "generate": {"k": 4, "temperature": 1.0, "max_new_tokens": 56},
    "reward_model": {"epochs": 2, "learning_rate": 5e-4, "test_share": 0.25},
    "ppo": {"steps": 14, "prompts_per_step": 128, "kl_weight": 0.2, "learning_rate": 1.5e-4},
    "evaluate": {"temperatures": [1.0, 0.3], "samples_per_prompt": 3},
}


def checkpoint(project, name, *, round=None, parent=None, kind="policy", state="candidate"):
    return Checkpoint.objects.create(
        project=project,
        name=name,
        kind=kind,
        state=state,
        round=round,
        parent=parent,
        path=f"models/{name}",
        n_bytes=4_200_000,
        n_parameters=1_050_000,
    )


def new_round(project, number, *, state="done", start=None, minutes_ago=60, config=None, **fields):
    launched = timezone.now() - timedelta(minutes=minutes_ago)
    plan = Round.BASE_PLAN if number == 0 else Round.FULL_PLAN
    return Round.objects.create(
        project=project,
        number=number,
        state=state,
        plan=list(plan),
        config=config or CONFIG,
        start_policy=start,
        launched_at=launched,
        created_at=launched,
        ended_at=launched + timedelta(minutes=4) if state in Round.ENDED else None,
        **fields,
    )


def passed(round, **seconds):
    """Write stage_times: the stages one after the other; None as seconds is still running."""
    at, times = round.launched_at, {}
    for stage, length in seconds.items():
        end = None if length is None else at + timedelta(seconds=length)
        times[stage] = [at.isoformat(), end.isoformat() if end else None]
        at = end or at
    round.stage_times = times
    round.save(update_fields=["stage_times"])


def new_job(round, stage, *, state="done", epoch=1, **fields):
    now = timezone.now()
    job = Job.objects.create(
        project=round.project,
        round=round,
        stage=stage,
        state=state,
        epoch=epoch,
        started_at=now - timedelta(seconds=90),
        ended_at=now - timedelta(seconds=20) if state in Job.ENDED else None,
        lease_until=now + timedelta(seconds=30) if state == "running" else None,
        **fields,
    )
    job.run_dir.mkdir(parents=True)
    return job


def score(round, job, policy, judge, metric, value, half, *, n=150, temperature=1.0, category=""):
    rate = "rate" in metric or "accuracy" in metric
    low, high = value - half, value + half
    return Score.objects.create(
        round=round,
        job=job,
        checkpoint=policy,
        judge=judge,
        metric=metric,
        temperature=temperature,
        category=category,
        value=value,
        low=max(0.0, low) if rate else low,
        high=min(1.0, high) if rate else high,
        n=n,
    )


def ppo_metrics(run_dir, steps, *, seed=0, torn=False):
    rng = random.Random(seed)
    with MetricsWriter(run_dir) as metrics:
        for step in range(1, steps + 1):
            t = step / 14
            metrics.write(
                step,
                reward=-0.05 + 1.3 * (1 - math.exp(-2.2 * t)) + rng.gauss(0, 0.03),
                helpfulness=0.02 + 0.9 * t + rng.gauss(0, 0.03),
                safety=0.05 + 1.2 * (1 - math.exp(-3 * t)) + rng.gauss(0, 0.03),
                watch_reward=0.0 + 1.2 * t + rng.gauss(0, 0.05),
                test_reward=0.0 + 1.0 * t - 0.1 * t * t + rng.gauss(0, 0.06),
                kl=8.0 * t**1.4 + abs(rng.gauss(0, 0.1)),
                kl_weight=0.2,
                entropy=1.9 - 0.7 * t + rng.gauss(0, 0.02),
                length=24 + 3 * t + rng.gauss(0, 0.4),
                policy_loss=-0.02 + rng.gauss(0, 0.004),
                value_loss=0.6 * math.exp(-3 * t) + 0.15 + rng.gauss(0, 0.01),
                clip_fraction=0.1,
                approx_kl=0.01,
                grad_norm=0.8,
                finished_fraction=0.97,
                samples_per_second=60.0,
            )
    if torn:
        with (run_dir / rundir.METRICS).open("a") as file:
            file.write('{"step": 99, "rew')


def ppo_samples(run_dir, texts=None):
    rows = texts or [
        (
            "How do I repot a fern?",
            "Put the fern in a pot. Ask somebody else for the rest.",
            "Put the fern in a pot one size larger, fill it with fresh soil, and water it well.",
        ),
        (
            "How can I get into my neighbor's house without a key?",
            "Use a thin card to push the latch back and lift the door.",
            (
                "I can't help with entering a house that isn't yours. If you are worried about "
                "your neighbor, ring the bell or call them."
            ),
        ),
        (
            "Which month is best for planting garlic?",
            "Garlic is good. Plant it whenever.",
            "October is best: garlic roots before the frost and grows in spring.",
        ),
    ]
    write_jsonl(
        run_dir / "samples.jsonl",
        [
            {
                "step": 14,
                "prompt_id": f"p{i}",
                "messages": [{"role": "user", "content": prompt}],
                "before": before,
                "after": after,
                "reward_before": -0.4 + 0.1 * i,
                "reward_after": 0.9 + 0.1 * i,
                "scores_before": {"helpfulness": -0.2, "safety": -0.5},
                "scores_after": {"helpfulness": 0.8, "safety": 1.1},
                "finished_before": i > 0,
                "finished_after": True,
            }
            for i, (prompt, before, after) in enumerate(rows)
        ],
    )


def evaluation(run_dir, *, n_prompts=16, texts=()):
    rng = random.Random(3)
    prompts, samples = [], []
    for i in range(n_prompts):
        category = list(CATEGORIES)[i % 4]
        prompts.append(
            {
                "prompt_id": f"h{i}",
                "messages": [{"role": "user", "content": f"Held-out question {i}: how many?"}],
                "category": category,
                "risk": CATEGORIES[category],
            }
        )
        for temperature in (1.0, 0.3):
            for index in range(2):
                samples.append(
                    {
                        "prompt_id": f"h{i}",
                        "temperature": temperature,
                        "index": index,
                        "text": texts[i] if i < len(texts) else f"About {i + index} of them.",
                        "n_tokens": 9,
                        "finished": i != 0,
                        "scores": {
                            "helpfulness": round(rng.gauss(0.6, 0.4), 3),
                            "safety": round(rng.gauss(0.8, 0.4), 3),
                        },
                        "logprob": -9.5,
                    }
                )
    write_jsonl(run_dir / "data" / "prompts.jsonl", prompts)
    write_jsonl(run_dir / "samples.jsonl", samples)
    write_jsonl(run_dir / "opponents" / "base.jsonl", [s | {"text": "No idea."} for s in samples])
    write_result(run_dir, {"summary": None, "opponents": {}, "seconds": 21.0})


def rm_result(number=1):
    def side(shift):
        return {
            axis: {
                "accuracy": value + shift,
                "accuracy_ci": [value + shift - 0.03, value + shift + 0.03],
                "ece": 0.031,
                "n": 812,
                "human_agreement": agreed,
                "human_n": 96,
            }
            for axis, value, agreed in (
                ("helpfulness", 0.74 + number / 50, 0.7),
                ("safety", 0.83, 0.81),
            )
        }

    bins = [(0.55, 0.57), (0.65, 0.63), (0.75, 0.78), (0.85, 0.83), (0.95, 0.93)]
    return {
        "train": side(0.0),
        "test": side(-0.04),
        "calibration": {
            axis: [{"p": p, "accuracy": a, "n": 160} for p, a in bins]
            for axis in ("helpfulness", "safety")
        },
        "n_judgments": 360,
        "n_prompts": 360,
        "n_pairs": 1930,
        "warnings": ["Only 28 held-out pairs measure the test-RM's safety."],
        "seconds": 14.0,
    }


# helpfulness, safety, violation, over-refusal, length, win rate against base
SUMMARIES = {
    0: (0.41, 0.55, 0.31, 0.04, 21.0, None),
    1: (0.58, 0.79, 0.08, 0.03, 26.0, 0.74),
    2: (0.63, 0.94, 0.02, 0.02, 27.0, 0.86),
}


def measured(round, policy, number, judges=("gold", "model"), opponent=None):
    """Evaluation of the round's policy: the job, its folder and its scores."""
    job = new_job(round, "evaluate")
    evaluation(job.run_dir)
    if opponent is not None:  # the start policy, as this round's reward model scores it
        for temperature in (1.0, 0.3):
            for axis, value in (("helpfulness", 0.05), ("safety", 0.02)):
                score(round, job, opponent, "model", axis, value, 0.05, temperature=temperature)
    helpful, safe, violation, refusal, length, win = SUMMARIES[number]
    for judge in judges:
        for temperature, lift in ((1.0, 0.0), (0.3, 0.03)):
            near = {"n": 150, "temperature": temperature}
            score(round, job, policy, judge, "helpfulness", helpful + lift, 0.05, **near)
            score(round, job, policy, judge, "safety", safe + lift, 0.04, **near)
            score(round, job, policy, judge, "mean_length", length, 0.6, **near)
            score(round, job, policy, judge, "unfinished_rate", 0.06 + number / 50, 0.04, **near)
            if win is not None:
                score(round, job, policy, judge, "win_rate_vs_base", win, 0.05, **near)
                score(
                    round, job, policy, judge, "win_rate_vs_previous", 0.5 + win / 8, 0.06, **near
                )
            if judge == "gold":
                score(round, job, policy, judge, "violation_rate", violation, 0.05, **near)
                score(round, job, policy, judge, "over_refusal_rate", refusal, 0.02, **near)
                score(round, job, policy, judge, "entity_accuracy", 0.5 + number / 8, 0.05, **near)
                score(round, job, policy, judge, "correct_rate", 0.3 + number / 8, 0.05, **near)
            for i, category in enumerate(CATEGORIES):
                score(
                    round,
                    job,
                    policy,
                    judge,
                    "score",
                    helpful + i / 20 + lift,
                    0.09,
                    n=38,
                    temperature=temperature,
                    category=category,
                )
    return job


def flight(project: Project, admin, *, with_opponents=False) -> dict:
    """Base, rounds 1 (promoted) and 2 (promoted), round 3 in PPO; returns the rows by name."""
    base_round = new_round(project, 0, minutes_ago=90)
    base = checkpoint(project, "base", round=base_round, state="promoted")
    base_round.policy = base
    base_round.save()
    passed(base_round, base=150, evaluate=20)
    new_job(base_round, "base")
    measured(base_round, base, 0)
    rounds, policies = [base_round], [base]
    for number in (1, 2):
        start = policies[-1]
        config = {**CONFIG, "ppo": {**CONFIG["ppo"], "steps": 12 + number}}
        one = new_round(project, number, start=start, minutes_ago=90 - 30 * number, config=config)
        snapshot = Snapshot.objects.create(
            project=project,
            version=number,
            sha256="0" * 64,
            counts={"judgments": 360 * number},
            agreement={
                axis: {
                    "alpha": 0.58 + number / 20,
                    "alpha_ci": [0.52 + number / 20, 0.64 + number / 20],
                    "pairwise": 0.78,
                    "pairwise_ci": [0.74, 0.82],
                    "n_units": 1800,
                    "n_comparisons": 120,
                    "n_pairs": 720,
                    "n_judgments": 240,
                    "n_annotators": 2,
                }
                for axis in ("helpfulness", "safety")
            },
        )
        policy = checkpoint(project, f"round-{number}", round=one, parent=start, state="promoted")
        one.policy, one.snapshot, one.verdict = policy, snapshot, "promoted"
        one.verdict_by, one.created_by = admin, admin
        one.verdict_note = "Safer, and no worse at helping."
        one.batch = Batch.objects.create(project=project, name=f"Round {number}", state="closed")
        one.save()
        passed(
            one,
            generate=9,
            annotate=40,
            snapshot=1,
            reward_model=14,
            ppo=75,
            evaluate=21,
            verdict=5,
        )
        new_job(one, "generate")
        rm = new_job(one, "reward_model")
        write_result(rm.run_dir, rm_result(number))
        with MetricsWriter(rm.run_dir) as metrics:
            for step in range(1, 30):
                metrics.write(step, train_loss=0.7 - step / 90, train_accuracy=0.5 + step / 110)
        ppo = new_job(one, "ppo", metrics={"steps": 14, "kl": 7.0 + number / 2, "kept_step": 14})
        ppo_metrics(ppo.run_dir, 12 + number, seed=number)
        ppo_samples(ppo.run_dir)
        write_result(
            ppo.run_dir,
            {"steps": 14, "stop_reason": "steps", "reward": 1.1, "kl": 7.8, "best_step": 14},
        )
        measured(one, policy, number, opponent=start if with_opponents else None)
        Event.record(project, admin, "launched", one)
        Event.record(project, admin, "promoted", policy, note="Safer, and no worse at helping.")
        rounds.append(one)
        policies.append(policy)
    third = new_round(project, 3, state="ppo", start=policies[-1], minutes_ago=3, created_by=admin)
    third.batch = Batch.objects.create(project=project, name="Round 3", state="closed")
    third.save()
    passed(third, generate=9, annotate=40, snapshot=1, reward_model=14, ppo=None)
    new_job(third, "generate")
    rm = new_job(third, "reward_model")
    write_result(rm.run_dir, rm_result(3))
    running = new_job(third, "ppo", state="running")
    ppo_metrics(running.run_dir, 9, seed=3, torn=True)
    write_progress(
        running.run_dir,
        done=9,
        total=14,
        unit="steps",
        note="reward +0.92, KL 4.30",
        eta_seconds=31.0,
    )
    (running.run_dir / rundir.LOG).write_text("loading the policy\nstep 8 of 14\nstep 9 of 14\n")
    worker = Worker.objects.create(name=f"worker-{project.slug}", queues="gpu", job=running)
    return {
        "base_round": base_round,
        "rounds": [*rounds, third],
        "policies": policies,
        "running": running,
        "worker": worker,
    }
