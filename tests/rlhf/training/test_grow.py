"""A grown model computes what the small one did, and learns on from there."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from rlhf.training.grow import grow, sources
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.tiny import prompt, result_of, rows_of, run_folder

SHAPE = {
    "vocab_size": 53,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def small(family="llama", **changes):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SHAPE | changes)))
    for parameter in model.parameters():  # gains of 1 and biases of 0 would hide mistakes
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def logits(model):
    ids = torch.randint(53, (3, 17), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(input_ids=ids).logits


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize(
    "growth",
    [{"width": 2}, {"width": 3}, {"intermediate": 2}, {"layers": 5}, {"width": 2, "layers": 3}],
    ids=str,
)
@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": False}),
        ("qwen3", {"tie_word_embeddings": True, "head_dim": 10}),
        ("mistral", {"tie_word_embeddings": False}),
    ],
)
def test_a_grown_model_computes_the_same(family, changes, growth, noise):
    before = small(family, **changes)
    after = grow(before, **growth, noise=noise)
    assert sum(p.numel() for p in after.parameters()) > sum(p.numel() for p in before.parameters())
    torch.testing.assert_close(logits(after), logits(before), atol=2e-4, rtol=1e-4)


def train(model, steps=30):
    """A few steps on one batch; the losses."""
    ids = torch.randint(53, (4, 16), generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def halves_of_the_embeddings(model):
    return model.model.embed_tokens.weight.detach().chunk(2, dim=1)


def test_without_noise_copies_stay_copies_and_with_noise_they_part():
    kept = grow(small(tie_word_embeddings=True), width=2)
    parted = grow(small(tie_word_embeddings=True), width=2, noise=0.5)
    for model in (kept, parted):
        losses = train(model)
        assert losses[-1] < 0.8 * losses[0]
    torch.testing.assert_close(*halves_of_the_embeddings(kept), atol=1e-4, rtol=1e-3)
    first, second = halves_of_the_embeddings(parted)
    assert float((first - second).abs().max()) > 1e-2


def test_a_new_layer_does_nothing_at_first_and_learns_at_once():
    model = grow(small(tie_word_embeddings=True), layers=4)
    new = model.model.layers[1]
    assert float(new.mlp.down_proj.weight.detach().abs().max()) == 0
    losses = train(model)
    assert losses[-1] < 0.8 * losses[0]
    assert float(new.mlp.down_proj.weight.detach().abs().max()) > 0


def test_new_layers_are_spread_evenly():
    assert sources(2, 4) == [(0, False), (0, True), (1, False), (1, True)]
    assert [i for i, _ in sources(4, 6)] == [0, 1, 1, 2, 3, 3]
    assert sum(is_new for _, is_new in sources(3, 11)) == 8


def test_what_cannot_be_grown_is_said():
    from transformers import GPT2Config, GPT2LMHeadModel

    other = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11))
    with pytest.raises(InputError, match="'gpt2' model can't be grown"):
        grow(other, width=2)
    with pytest.raises(InputError, match="has 2 already"):
        grow(small(), layers=1)


def test_the_stage_writes_a_policy_that_answers_as_the_small_one_does(talker, tmp_path):
    from rlhf.training import evaluate
    from rlhf.training import grow as stage

    folder = run_folder(
        tmp_path / "grow", {"policy": talker, "width": 2, "layers": 3, "noise": 0.3, "threads": 1}
    )
    stage.main(folder, StopRequest())
    result = result_of(folder)
    assert result["max_difference"] < 1e-4
    assert result["n_parameters"] > 2 * result["n_parameters_before"]
    texts = []
    for name, policy in (("small", talker), ("large", str(folder / "policy"))):
        run = run_folder(
            tmp_path / name,
            {"policy": policy, "max_new_tokens": 8, "threads": 1},
            prompts=[prompt(i) for i in range(4)],
        )
        evaluate.main(run, StopRequest())
        texts.append([row["text"] for row in rows_of(run / "samples.jsonl")])
    assert texts[0] == texts[1]
