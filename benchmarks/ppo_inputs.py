"""What `ppo_vs_trl` gives to both trainers: a policy, a reward model in two formats, prompts.

Either a small base of the demo's world, whose reward is fitted to the world's gold rubric, so that
there is something to learn; or a policy of random weights of any size (`--random 0.5B`), with prompts
and responses of given lengths: nothing to learn, but the speed of a real one. Its tokenizer has a
word for every token of the vocabulary, so that a response that is read again as text (the reward
model reads text) has about as many tokens as were sampled.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

SIZES: dict[str, dict[str, int]] = {
    # As Qwen2.5's of these names.
    "0.5B": {
        "layers": 24, "hidden": 896, "heads": 14, "kv_heads": 2, "inside": 4864, "vocab": 151_936,
    },
    "1.5B": {
        "layers": 28, "hidden": 1536, "heads": 12, "kv_heads": 2, "inside": 8960, "vocab": 151_936,
    },
    "toy": {"layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "inside": 160, "vocab": 1024},
}  # fmt: skip
CONTEXT = 32_768
"""Positions of a random policy, as Qwen2.5's."""


def shape_of(arguments: argparse.Namespace) -> dict[str, int]:
    """The named size with what was asked otherwise; the MLP stays as many times as wide."""
    shape = dict(SIZES[arguments.random])
    if arguments.hidden:
        shape["inside"] = shape["inside"] * arguments.hidden // shape["hidden"]
    for name in ("layers", "hidden", "heads", "vocab"):
        shape[name] = getattr(arguments, name) or shape[name]
    if shape["heads"] % shape["kv_heads"]:
        shape["kv_heads"] = shape["heads"]
    if shape["hidden"] % (2 * shape["heads"]):
        sys.exit(f"--heads {shape['heads']} must divide --hidden {shape['hidden']} evenly.")
    return shape


def prepare(arguments: argparse.Namespace) -> None:
    """Everything into the scratch folder, once; `ready.json` says what for, and the policy's shape."""
    import torch

    from benchmarks.limits import Shape
    from rlhf.training.language_models.policy import load_policy
    from rlhf.training.rundir.files import read_jsonl

    work: Path = arguments.work
    asked = {
        "policy": arguments.policy,
        "random": shape_of(arguments) if arguments.random else None,
        "prompt_tokens": arguments.prompt_tokens,
        "response_tokens": arguments.response_tokens,
        "prompts": str(arguments.prompts or max(arguments.batch, 768)),
    }
    if (work / "ready.json").exists():
        if json.loads((work / "ready.json").read_text())["asked"] != asked:
            sys.exit(f"{work} was made ready for something else; give another --work.")
        return
    if arguments.random:
        policy = _random(work, arguments, asked)
    elif arguments.prompts:
        policy = _of_prompts(work, arguments)
    else:
        policy = _of_the_world(work, arguments, asked)
    read = load_policy(policy, "policy", device=torch.device("cpu"))
    rows = read_jsonl(work / "prompts.jsonl")
    lengths = [len(read.prompt_ids(row["messages"])) for row in rows]
    if arguments.random:
        assert set(lengths) == {arguments.prompt_tokens}, set(lengths)
    ready = {
        "asked": asked,
        "policy": policy,
        "prompt_tokens": statistics.mean(lengths),
        "shape": asdict(Shape.of(read.model)),
    }
    (work / "ready.json").write_text(json.dumps(ready))


def policy_of(work: Path) -> str:
    """The policy's folder."""
    return str(json.loads((work / "ready.json").read_text())["policy"])


def _random(work: Path, arguments: argparse.Namespace, asked: dict[str, Any]) -> str:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.training.reward_models.model import RewardModel
    from rlhf.training.rundir.files import write_jsonl
    from rlhf.training.word_tokenizer import build_tokenizer

    shape, folder = asked["random"], str(work / "policy")
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = len(build_tokenizer([]))
    if shape["vocab"] < known + 26:
        sys.exit(f"--vocab must be {known + 26} or more: bytes and marks take {known}.")
    names = ("".join(n) for size in range(1, 9) for n in itertools.product(letters, repeat=size))
    words = list(itertools.islice(names, shape["vocab"] - known))
    tokenizer = build_tokenizer([" " + " ".join(words)], max_length=CONTEXT)
    assert len(tokenizer) == shape["vocab"], (len(tokenizer), shape)
    torch.manual_seed(0)
    # A Qwen2 but for its biases: beside a model of that type transformers takes Qwen2's tokenizer,
    # whatever lies there.
    config = LlamaConfig(
        vocab_size=shape["vocab"],
        hidden_size=shape["hidden"],
        intermediate_size=shape["inside"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)

    # Prompts of exactly so many tokens, no two alike.
    generator = random.Random(0)
    overhead = len(tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=True,
                                                 add_generation_prompt=True)["input_ids"])  # fmt: skip
    rows = []
    for number in range(int(asked["prompts"])):
        text = " " + " ".join(generator.choices(words, k=arguments.prompt_tokens - overhead))
        messages = [{"role": "user", "content": text}]
        rows.append({"prompt_id": str(number), "messages": messages, "risk": ""})
    write_jsonl(work / "prompts.jsonl", rows)

    longest = arguments.prompt_tokens + 2 * arguments.response_tokens
    model = RewardModel.new(
        folder, ["preference"], use_prior=False, max_length=longest, device="cpu"
    )
    _save_reward(work, folder, model, torch.randn(shape["hidden"]) / shape["hidden"] ** 0.5)
    return folder


def _of_prompts(work: Path, arguments: argparse.Namespace) -> str:
    """A policy of one's own and prompts for it; the reward is a random direction of its states."""
    import torch

    from rlhf.training.reward_models.model import RewardModel
    from rlhf.training.rundir.files import read_jsonl, write_jsonl

    folder = str(Path(arguments.policy).resolve())
    rows = read_jsonl(arguments.prompts)
    write_jsonl(work / "prompts.jsonl", rows)
    model = RewardModel.new(folder, ["preference"], use_prior=False, max_length=1024, device="cpu")
    torch.manual_seed(0)
    hidden = model.trunk.config.hidden_size
    _save_reward(work, folder, model, torch.randn(hidden) / hidden**0.5)
    return folder


def _of_the_world(work: Path, arguments: argparse.Namespace, asked: dict[str, Any]) -> str:
    import torch

    from rlhf.training import sampling
    from rlhf.training.language_models.policy import load_policy
    from rlhf.training.reward_models.model import RewardModel
    from rlhf.training.rundir.files import write_jsonl
    from rlhf.training.rundir.process import StopRequest
    from rlhf.world import answers, rubric
    from rlhf.world.prompts import make_prompts

    policy_folder = arguments.policy
    if not policy_folder:
        from rlhf.training import base

        folder = work / "base"
        (folder / "data").mkdir(parents=True, exist_ok=True)
        write_jsonl(folder / "data/corpus.jsonl", list(answers.corpus(0, 8000)))
        config = {"clean_steps": 150, "mix_steps": 100, "threads": arguments.threads}
        (folder / "config.json").write_text(json.dumps(config))
        base.main(folder, StopRequest())
        policy_folder = str(folder / "policy")
    prompts = make_prompts("train", int(asked["prompts"]), 0, harmful_share=0.0)
    write_jsonl(
        work / "prompts.jsonl",
        [
            {"prompt_id": str(i), "messages": p.messages, "category": p.category, "risk": p.risk}
            for i, p in enumerate(prompts)
        ],
    )

    # The reward: ridge regression of the gold score on the trunk's last hidden state.
    policy = load_policy(policy_folder, "policy", device=torch.device("cpu"))
    encoded = [
        policy.encode_prompt(p.messages, "", room=arguments.response_tokens) for p in prompts
    ]
    drawn = sampling.sample(
        policy.model,
        encoded,
        k=1,
        max_new_tokens=arguments.response_tokens,
        temperature=1.0,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator().manual_seed(0),
    )
    pairs = [
        (p, policy.decode(answers[0].tokens)) for p, answers in zip(prompts, drawn, strict=True)
    ]
    model = RewardModel.new(
        policy_folder, ["preference"], use_prior=False, max_length=512, device="cpu"
    )
    read = model.tokenize([p.messages for p, _ in pairs], [text for _, text in pairs])
    with torch.inference_mode():
        states = [model.response_states(read[i : i + 256])[0] for i in range(0, len(read), 256)]
    hidden = torch.cat(states).double()
    gold = torch.tensor([rubric.judge(p.slots, text).preference for p, text in pairs]).double()
    target = (gold - gold.mean()) / gold.std()
    gram = hidden.T @ hidden + 1e-3 * len(pairs) * torch.eye(hidden.shape[1]).double()
    head = torch.linalg.solve(gram, hidden.T @ target)
    head = (head / (hidden @ head).std()).float()  # scores with deviation 1, and no bias
    print(f"correlation with gold: {torch.corrcoef(torch.stack([hidden @ head.double(), gold]))}")
    _save_reward(work, policy_folder, model, head)
    return policy_folder


def _save_reward(work: Path, policy: str, model: Any, head: Any) -> None:
    """One linear head (H,) on the policy's trunk, in our format and as a sequence classifier."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from rlhf.training.reward_models.folder import save_reward_model

    hidden = len(head)
    model.heads = torch.nn.Linear(2 * hidden, 1)
    with torch.no_grad():
        model.heads.weight.zero_()
        model.heads.weight[0, :hidden] = head
        model.heads.bias.zero_()
    save_reward_model(model, work / "reward")
    classifier = AutoModelForSequenceClassification.from_pretrained(policy, num_labels=1)
    with torch.no_grad():
        classifier.score.weight.copy_(head[None])
    classifier.save_pretrained(work / "classifier")
