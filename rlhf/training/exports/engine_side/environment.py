"""Ground Control's prompts and reward model, as NeMo-RL takes data and rewards."""

import ray
import torch
from nemo_rl.environments.interfaces import EnvironmentInterface, EnvironmentReturn

import reward


def read_prompt(datum, task, tokenizer, max_seq_length, idx):
    """A line of prompts.jsonl as the policy reads it; one that is too long has weight 0."""
    text = tokenizer.apply_chat_template(
        datum["messages"], tokenize=False, add_generation_prompt=True
    )
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    return {
        "message_log": [{"role": "user", "content": text, "token_ids": ids[:max_seq_length]}],
        "length": min(len(ids), max_seq_length),
        "extra_env_info": {"label": datum["label"]},
        "loss_multiplier": float(len(ids) <= max_seq_length),
        "idx": idx,
        "task_name": datum["task_name"],
    }


@ray.remote
class RewardModel(EnvironmentInterface):
    """One answer and one reward per episode."""

    def __init__(self, config):
        pass

    def step(self, message_log_batch, metadata):
        texts = [reward.answer_in(log[-1]["content"], "") for log in message_log_batch]
        return EnvironmentReturn(
            observations=[{"role": "environment", "content": ""} for _ in texts],
            metadata=metadata,
            next_stop_strings=[None for _ in texts],
            rewards=reward.scores([info["label"] for info in metadata], texts).float().cpu(),
            terminateds=torch.ones(len(texts), dtype=torch.bool),
            answers=texts,
        )

    def global_post_process_and_metrics(self, batch):
        return batch, {}
