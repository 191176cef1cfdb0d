"""A few sampled answers: whether they end, whether they differ, and their rewards.

They are sampled and scored as in the stage.
"""

import functools
import statistics
from dataclasses import dataclass
from typing import Any

from rlhf.training.doctor.report import Report
from rlhf.training.rundir.errors import InputError
from rlhf.training.score_summary import MANY_UNFINISHED

PROBED_PROMPTS = 12
PROBED_ANSWERS = 8
"""A few answers to a few prompts: enough to compare rewards, within seconds."""


@dataclass
class Probed:
    """A few prompts and several sampled answers to each."""

    prompts: list[Any]
    encoded: list[list[int]]
    answers: list[list[Any]]
    policy: Any
    seconds: float

    @functools.cached_property
    def flat(self) -> list[Any]:
        """All answers, prompt by prompt."""
        return [answer for group in self.answers for answer in group]

    @functools.cached_property
    def texts(self) -> list[str]:
        """The texts of all answers."""
        return [self.policy.decode(answer.tokens) for answer in self.flat]

    @functools.cached_property
    def prompt_of(self) -> list[Any]:
        """The prompt of each of all answers."""
        return [p for p, group in zip(self.prompts, self.answers, strict=True) for _ in group]


def some_prompts(
    policy: Any, prompts: list[Any], max_new_tokens: int
) -> tuple[list[Any], list[list[int]]]:
    """A few of the prompts, evenly spread, and their token ids."""
    chosen = prompts[:: max(1, len(prompts) // PROBED_PROMPTS)][:PROBED_PROMPTS]
    kept, encoded = policy.encode_fitting(chosen, room=max_new_tokens, long_prompts="refuse")
    return kept, encoded


def ppo_reward(models: Any, probed: Probed) -> Any:
    """The rewards that PPO maximizes (answers,): from its own `score`, then changed for answers that
    are too long or did not end."""
    import torch

    scores, _ = models.reward.score(probed.prompt_of, probed.texts)
    if not bool(torch.isfinite(scores).all()):
        raise InputError(
            "Rewards of sampled answers are not finite numbers; fix the reward model or the rule "
            "that gave them."
        )
    finished = torch.tensor([answer.finished for answer in probed.flat])
    return models.reward.shape_by_ending(scores, [len(a.tokens) for a in probed.flat], finished)


def combined(scorer: Any, probed: Probed, threshold: float) -> Any:
    """One score (answers,) by a reward model alone."""
    axes = scorer.score([p.messages for p in probed.prompt_of], probed.texts)
    return scorer.combine(axes, [p.risk for p in probed.prompt_of], threshold=threshold)


def with_no_eos_score(probed: Probed, scores: Any, no_eos_score: float | None) -> Any:
    """The scores, with `no_eos_score` for answers that did not end (None: unchanged)."""
    import torch

    from rlhf.training import reward_shaping

    if no_eos_score is None:
        return scores
    finished = torch.tensor([answer.finished for answer in probed.flat])
    return reward_shaping.replace_unfinished(scores.cpu(), finished, no_eos_score)


def report_answers(report: Report, probed: Probed, max_new_tokens: int) -> None:
    """Report the answers' lengths, and whether they end and differ."""
    flat = probed.flat
    tokens = sum(len(a.tokens) for a in flat)
    ended = sum(a.finished for a in flat) / len(flat)
    groups = [probed.texts[i : i + PROBED_ANSWERS] for i in range(0, len(flat), PROBED_ANSWERS)]
    distinct = statistics.fmean(len(set(group)) / len(group) for group in groups)
    report.figures |= {
        "tokens_per_second": tokens / probed.seconds,
        "mean_response_tokens": tokens / len(flat),
        "finished": ended,
        "distinct": distinct,
    }
    if ended < 1 - MANY_UNFINISHED:
        report.add(
            "warning",
            "answers",
            f"Only {ended:.0%} of {len(flat)} sampled answers ended within {max_new_tokens} "
            "tokens; raise max_new_tokens, or fine-tune the policy first (sft).",
        )
    elif distinct < 0.3:
        report.add(
            "warning",
            "answers",
            f"Of {PROBED_ANSWERS} answers to a prompt only {distinct * PROBED_ANSWERS:.1f} differ; "
            "a policy that always says the same can't find anything better.",
        )
    else:
        report.add(
            "ok",
            "answers",
            f"{ended:.0%} of {len(flat)} sampled answers end; mean length "
            f"{tokens / len(flat):.0f} tokens.",
        )


def report_rewards(report: Report, probed: Probed, rewards: dict[str, Any]) -> None:
    """Report whether rewards (answers,) differ, also among finished answers, and whether both
    models agree."""
    judged = {name: r.reshape(-1, PROBED_ANSWERS) for name, r in rewards.items()}
    if "reward_model" in judged:
        scores = judged["reward_model"]
        spread = float(scores.std(dim=1).mean())
        headroom = float((scores.max(dim=1).values - scores.mean(dim=1)).mean())
        report.figures |= {"reward_spread": spread, "best_of_8_headroom": headroom}
        ended = [
            [s for s, a in zip(row, group, strict=True) if a.finished]
            for row, group in zip(scores.tolist(), probed.answers, strict=True)
        ]
        apart = [statistics.stdev(some) for some in ended if len(some) > 1]
        among = statistics.fmean(apart) if apart else None
        report.figures["reward_spread_of_ended"] = among
        summary = (
            f"Answers to one prompt differ by {spread:.2f} (standard deviation of the reward); the "
            f"best of {PROBED_ANSWERS} is {headroom:.2f} above the mean."
        )
        if spread < 0.05:
            report.add("warning", "reward", summary + " There is almost nothing to optimize.")
        elif among is not None and among < 0.05:
            report.add(
                "warning",
                "reward",
                summary + f" Those that end differ by {among:.2f} only: apart from ending there is "
                "almost nothing to optimize.",
            )
        else:
            report.add("ok", "reward", summary)
    if len(judged) == 2:
        first, second = (s - s.mean(dim=1, keepdim=True) for s in judged.values())
        size = float(first.norm() * second.norm())
        agreement = float((first * second).sum()) / size if size > 0 else 0.0
        report.figures["reward_models_agree"] = agreement
        report.add(
            "warning" if agreement < 0.2 else "ok",
            "reward",
            f"The two reward models' scores of these answers have a correlation of {agreement:.2f}"
            + ("; they reward different properties." if agreement < 0.2 else "."),
        )
