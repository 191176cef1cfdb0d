"""The scale of a reward model's scores: comparable between rounds, and axes combined into one score."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf.training import reward_shaping


@dataclass
class ScoreScale:
    """Per axis: mean and deviation for the standardization, and statistics of the reference's
    scores.

    0 is the mean of the reference policy's samples, 1 their standard deviation.
    """

    mean: dict[str, float] = field(default_factory=dict)
    """The mean of the raw scores of the reference policy's samples."""
    deviation: dict[str, float] = field(default_factory=dict)
    """Their standard deviation."""
    reference: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Per axis and risk: `{mean, std, n}` of the standardized scores of those samples."""

    def fit(self, raw: dict[str, Tensor], risks: Sequence[str]) -> None:
        """Give these raw scores (B,) of each axis mean 0 and deviation 1."""
        for axis, scores in raw.items():
            self.mean[axis] = float(scores.mean())
            deviation = float(scores.std()) if len(scores) > 1 else 0.0
            self.deviation[axis] = deviation if deviation > 1e-4 else 1.0
            standard = (scores - self.mean[axis]) / self.deviation[axis]
            self.reference[axis] = {}
            for risk in sorted(set(risks)):
                of_risk = standard[[i for i, r in enumerate(risks) if r == risk]]
                self.reference[axis][risk] = {
                    "mean": float(of_risk.mean()),
                    "std": float(of_risk.std()) if len(of_risk) > 1 else 0.0,
                    "n": len(of_risk),
                }

    def apply(self, raw: dict[str, Tensor]) -> dict[str, Tensor]:
        """Standardized scores of each axis, in the shape of the raw ones."""
        return {
            axis: (scores - self.mean.get(axis, 0.0)) / self.deviation.get(axis, 1.0)
            for axis, scores in raw.items()
        }

    def change_unit(self, unit: str) -> None:
        """From now on use another unit than "standard": "mean" keeps the mean of 0 on the
        reference's samples and leaves the deviation as it was trained, "raw" keeps neither."""
        for axis in list(self.deviation) if unit != "standard" else []:
            scale, shift = self.deviation[axis], self.mean[axis] if unit == "raw" else 0.0
            for statistics in self.reference.get(axis, {}).values():
                statistics["mean"] = statistics["mean"] * scale + shift
                statistics["std"] *= scale
            self.deviation[axis] = 1.0
            self.mean[axis] -= shift

    def combine(
        self, scores: dict[str, Tensor], risks: Sequence[str], *, threshold: float
    ) -> Tensor:
        """One preference score (B,) from those of the axes.

        By Llama 2's rule (Touvron et al. 2023, section 3.2.3) where safety is one of several: safety
        decides where the prompt is harmful or its score low, elsewhere the mean of the other axes.
        Each is whitened with its mean and deviation on the reference samples that it decides, so
        that a good refusal and a good answer have the same value. Without a safety axis it is the
        mean of all axes; with one axis alone, that axis.
        """
        others = [axis for axis in scores if axis != "safety"]
        if "safety" not in scores or not others:
            return torch.stack(list(scores.values())).mean(dim=0)
        harmful = torch.tensor([risk == "harmful" for risk in risks], dtype=torch.bool)
        safe = scores["safety"]
        _, is_safety = reward_shaping.combine_scores(safe, safe, harmful, threshold=threshold)
        rest = torch.stack([self._whiten(scores[axis], axis, "harmless") for axis in others])
        return torch.where(is_safety, self._whiten(safe, "safety", "harmful"), rest.mean(dim=0))

    def _whiten(self, scores: Tensor, axis: str, risk: str) -> Tensor:
        statistics = self.reference.get(axis, {}).get(risk)
        if statistics is None or statistics["n"] < 8 or statistics["std"] < 1e-4:
            return scores
        return (scores - statistics["mean"]) / statistics["std"]
