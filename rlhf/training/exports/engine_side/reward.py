"""Scores of Ground Control's reward model, for the engine that this folder is for."""

import json
from pathlib import Path
from threading import Lock

from rlhf.training.reward_models.folder import load_reward_model

SETTINGS = json.loads((Path(__file__).parent / "reward.json").read_text(encoding="utf-8"))
MODEL = load_reward_model(Path(__file__).parent / "reward_model")
LOCK = Lock()


def scores(prompts, texts):
    """One number for each text; `prompts` are JSON objects with messages and risk."""
    parsed = [json.loads(prompt) for prompt in prompts]
    risks = [prompt["risk"] for prompt in parsed]
    with LOCK:
        axes = MODEL.score([prompt["messages"] for prompt in parsed], texts)
    if SETTINGS["combine"] == "threshold":
        total = MODEL.combine(axes, risks, threshold=SETTINGS["safety_threshold"])
    else:
        weights = SETTINGS["weights"]
        total = sum(weights.get(axis, 1.0) * score for axis, score in axes.items())
    if SETTINGS["score_clip"]:
        total = total.clamp(-SETTINGS["score_clip"], SETTINGS["score_clip"])
    return total


def answer_in(query, prompt):
    """The policy's answer, without the prompt and the token that ends it."""
    text = query[len(prompt) :] if query.startswith(prompt) else query
    for end in SETTINGS["stop"]:
        text = text.split(end)[0]
    return text.strip()


def reward_func(queries, prompts, labels):
    """OpenRLHF's signature: whole texts, rendered prompts, and our label."""
    texts = [answer_in(query, prompt) for query, prompt in zip(queries, prompts, strict=True)]
    total = scores(labels, texts)
    return {"rewards": total, "scores": total, "extra_logs": {}}


def compute_score(data_source, solution_str, ground_truth, extra_info=None, **_):
    """verl's signature: one answer."""
    return float(scores([ground_truth], [solution_str.strip()])[0])
