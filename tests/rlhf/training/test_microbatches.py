"""A forward pass has no more tokens than memory allows, and learns the same as a larger one."""

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    Qwen2Config,
    T5Config,
    T5EncoderModel,
)

from rlhf.training import microbatches, parallel
from rlhf.training.configs import RewardModelConfig
from rlhf.training.data import read_judgments
from rlhf.training.reward_data import add_prior_features, group_judgments
from rlhf.training.reward_learner import Learner
from rlhf.training.reward_loss import bootstrap_counts
from rlhf.training.reward_model import add_gradients, new_member
from rlhf.training.reward_models.texts import padded_tokens
from tests.rlhf.training.test_reward_options import PEOPLE, opinions, train
from tests.rlhf.training.tiny import result_of, run_folder

CPU = torch.device("cpu")
SMALL = {"vocab_size": 2000, "hidden_size": 128, "intermediate_size": 384}
SMALL |= {"num_hidden_layers": 3, "num_attention_heads": 4}
MODELS = {
    "llama": lambda: AutoModelForCausalLM.from_config(LlamaConfig(**SMALL)),
    "qwen2": lambda: AutoModel.from_config(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gpt2": lambda: AutoModelForCausalLM.from_config(
        GPT2Config(vocab_size=2000, n_embd=128, n_layer=3, n_head=4)
    ),
    "bert": lambda: AutoModel.from_config(BertConfig(**SMALL)),
    "t5": lambda: T5EncoderModel(
        T5Config(vocab_size=2000, d_model=128, d_kv=32, d_ff=384, num_layers=3, num_heads=4)
    ),
}


def kept_bytes(model, ids):
    """Bytes that autograd keeps of a forward pass for its backward pass, without the weights."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes(), tensor  # alive, so that none is reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model(input_ids=ids)
        states = out.logits.float().log_softmax(-1) if hasattr(out, "logits") else out[0]
        states.sum()
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("kind", MODELS)
def test_what_a_pass_keeps_is_known_from_the_shapes_of_the_matrices(kind):
    model = MODELS[kind]().train()
    tokens = 4 * 48
    measured = kept_bytes(model, torch.arange(tokens).view(4, 48)) / tokens
    assert 0.5 < microbatches.bytes_per_token(model, trains=True) / measured < 2
    reading = microbatches.bytes_per_token(model, trains=False)
    assert reading < microbatches.bytes_per_token(model, trains=True)


def test_a_larger_model_gets_fewer_tokens_and_each_machine_the_same_every_time():
    def small(**changes):
        return AutoModelForCausalLM.from_config(LlamaConfig(**SMALL | changes))

    one = microbatches.default_tokens(small(), device=CPU, trains=True)
    assert one == microbatches.default_tokens(small(), device=CPU, trains=True)
    assert one > microbatches.default_tokens(small(num_hidden_layers=9), device=CPU, trains=True)
    both = microbatches.default_tokens(small(), small(), device=CPU, trains=True)
    assert both == one // 2
    assert one > 10_000  # of a small model, a batch stays one pass


def test_a_pass_has_every_row_once_in_order_and_a_row_that_is_too_long_alone():
    sizes = [3, 9, 4, 4, 30, 2]
    parts = list(
        microbatches.split(
            range(6), size=3, tokens=16, padded=lambda rows: sum(sizes[i] for i in rows)
        )
    )
    assert parts == [[0, 1, 2], [3], [4], [5]]
    assert list(microbatches.split([], size=3, tokens=1, padded=len)) == []


def gradients(talker, tmp_path, tokens, **settings):
    """The gradients of one batch, with the loss and how many tokens each pass had."""
    rows, reference = opinions()
    config = RewardModelConfig(trunk=talker, threads=1, tokens_per_pass=tokens, **settings)
    folder = run_folder(tmp_path / f"{tokens}", {}, preferences=rows, reference=reference)
    torch.manual_seed(0)
    model = new_member(config, config.axes, 0, CPU, [], "train")
    groups = group_judgments(model, read_judgments(folder, config.axes), PEOPLE)
    add_prior_features(model, groups, config.batch_size)
    learner = Learner(model, len(PEOPLE), parallel.Group(), config)
    sizes, score = [], model.raw_scores
    model.raw_scores = lambda texts, given: (sizes.append(padded_tokens(texts)), score(texts, given))[1]  # fmt: skip
    sums = add_gradients(learner, groups, bootstrap_counts(groups, model, 0))
    named = dict(model.trunk.named_parameters()) | dict(model.heads.named_parameters())
    named |= {"log_nu": model.log_nu, "reliability": learner.log_reliability}
    longest = max(padded_tokens([t]) for g in groups for t in g.texts)
    found = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    return found, sums, sizes, longest


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"members": 3, "prior": False},
        {"loss": "plackett_luce", "prior": False},
        {"members": 2, "ensemble": "adapters", "adapter_rank": 2, "prior": False},
        {"share_prompts": False, "ties": "half", "margin": 0.5, "label_smoothing": 0.1},
    ],
    ids=["pairs", "three heads", "plackett_luce", "adapters", "margins"],
)
def test_the_gradients_of_a_batch_are_the_same_in_passes_of_any_size(talker, tmp_path, changes):
    whole, sums, sizes, longest = gradients(talker, tmp_path, 0, **changes)
    assert len(set(sizes)) == 1  # the small world keeps one pass (for each adapter)
    # Several rankings, about one of them, less than one (its scores first), and single texts.
    for tokens in (6 * longest, 4 * longest, 2 * longest, 1):
        cut, again, passes, _ = gradients(talker, tmp_path, tokens, **changes)
        assert max(passes) <= max(tokens, longest)
        assert len(passes) > len(sizes)
        assert again == pytest.approx(sums, rel=1e-4)
        assert cut.keys() == whole.keys()
        for name, gradient in whole.items():
            scale = float(gradient.abs().max())
            assert torch.allclose(cut[name], gradient, atol=1e-4 * scale + 1e-9), name


def test_a_run_in_small_passes_ends_with_the_same_reward_models(talker, tmp_path):
    settings = {"prior": True, "members": 2, "epochs": 2}
    whole = result_of(train(tmp_path / "whole", talker, **settings))
    small = result_of(train(tmp_path / "small", talker, tokens_per_pass=40, **settings))
    for half in ("train", "test"):
        for axis in ("helpfulness", "safety"):
            ours, theirs = small[half][axis], whole[half][axis]
            assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.03)
            assert ours["ece"] == pytest.approx(theirs["ece"], abs=0.03)
