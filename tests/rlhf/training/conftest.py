"""What several tests of the training stages share: a tiny policy, reward models, a PPO run folder."""

import hashlib
import random

import pytest

from rlhf.training.configs import PPOConfig
from rlhf.training.data import Prompt
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.tiny import WORDS, judgment, make_policy, prompt, result_of, run_folder

HARMFUL = 5  # every fifth prompt


def make_rewards(folder, policy, score, *, lengths=(5, 5), **settings):
    """Reward models that learnt from rankings by a rule, on both axes."""
    generator = random.Random(0)
    rows, reference = [], []
    for number in range(90):
        texts = [
            " ".join(generator.choices(WORDS, k=generator.randint(*lengths))) for _ in range(4)
        ]
        ranks = [1 + sum(score(b) > score(a) for b in texts) for a in texts]
        risk = "harmful" if number % HARMFUL == 0 else "harmless"
        both = {"helpfulness": ranks, "safety": ranks}
        rows.append(judgment(number, texts, both, risk=risk))
        reference.append(prompt(number, risk=risk) | {"text": texts[0]})
    run_folder(
        folder,
        {"trunk": policy, "epochs": 5, "test_share": 0.4, "threads": 1} | settings,
        preferences=rows,
        reference=reference,
    )
    from rlhf.training import reward_model

    reward_model.main(folder, StopRequest())
    return folder


def nice(text):
    return text.split().count("nice")


@pytest.fixture(scope="session")
def talker(tmp_path_factory):
    """A random policy that mostly says words and sometimes ends."""
    from safetensors.torch import load_file, save_file

    folder = make_policy(tmp_path_factory.mktemp("policy"))
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    likely = [tokenizer.eos_token_id] + [tokenizer.encode(f" {word}")[0] for word in WORDS]
    # Tied embeddings: longer ones are likelier outputs.
    embeddings = tensors["model.embed_tokens.weight"]
    embeddings[likely] *= 12
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


@pytest.fixture(scope="session")
def taste(talker, tmp_path_factory):
    """Reward models that like the word "nice"."""
    return make_rewards(tmp_path_factory.mktemp("taste"), talker, nice)


@pytest.fixture(scope="session")
def many(talker, tmp_path_factory):
    """The same taste, as an ensemble of three heads."""
    return make_rewards(tmp_path_factory.mktemp("many"), talker, nice, members=3, epochs=1)


@pytest.fixture
def ready(talker, taste, tmp_path):
    """A run folder waiting to be run, with settings of its own, by dotted or short keys."""
    short = {key: old for old, key in PPOConfig.OLD_KEYS.items()}

    def make(name="run", **settings):
        config = {
            "policy": talker,
            "reference": talker,
            "reward_model": str(taste / "train"),
            "test_reward_model": str(taste / "test"),
            "steps": 2,
            "prompts_per_step": 12,
            "minibatch_size": 6,
            "microbatch_size": 4,
            "max_new_tokens": 8,
            "learning_rate": 1e-3,
            "threads": 1,
        }
        risks = ["harmful" if i % HARMFUL == 0 else "harmless" for i in range(24)]
        return run_folder(
            tmp_path / name,
            config | {short.get(key, key): value for key, value in settings.items()},
            prompts=[prompt(i, risk=risk) for i, risk in enumerate(risks)],
            watch=[prompt(300 + i) for i in range(6)],
            ptx=[prompt(i) | {"response": "sorry no blue kettle"} for i in range(8)],
        )

    return make


def finish(folder):
    """Run PPO in this process."""
    from rlhf.training import ppo

    ppo.main(folder, StopRequest())
    return result_of(folder)


def weights(folder):
    return hashlib.sha256((folder / "policy" / "model.safetensors").read_bytes()).hexdigest()


FILE = "/model.safetensors"


def stop_after(folder, steps):
    """SIGTERM, as far as the stage can tell, once so many steps are in the books."""

    class StopAfter(StopRequest):
        @property
        def requested(self):
            path = folder / "metrics.jsonl"
            return path.exists() and len(path.read_text().splitlines()) >= steps

        @requested.setter
        def requested(self, value):
            pass

    return StopAfter()


def as_read(number):
    """The prompt of `tiny.prompt`, as a stage reads it."""
    return Prompt(**prompt(number))
