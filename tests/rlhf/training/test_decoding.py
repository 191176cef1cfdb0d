"""The compact decoder says what transformers says, and reading wastes nothing."""

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from rlhf.training import decoding, packing, ppo_math, products, sampling

CPU = torch.device("cpu")
PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


def llama(**changes):
    torch.manual_seed(0)
    config = {
        "vocab_size": 61,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
    }
    model = LlamaForCausalLM(LlamaConfig(**config | changes)).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):  # not the 1 and 0 that they start as
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def lora(model, *, rank=4):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


MODELS = {
    "plain": lambda: llama(),
    "grouped queries and biases": lambda: llama(
        num_key_value_heads=2, attention_bias=True, mlp_bias=True, head_dim=16
    ),
    "tied, llama3's rope": lambda: llama(
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 100.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "lora": lambda: lora(llama()),
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_compact_decoder_says_what_transformers_says(name):
    model = MODELS[name]()
    assert decoding.LlamaDecoder.reads(model)
    generator = torch.Generator().manual_seed(1)
    k, steps = 2, 6
    drawn = torch.randint(1, 61, (len(PROMPTS) * k, steps), generator=generator)
    decoder, hidden = decoding.begin(model, PROMPTS, k=k, room=steps, pad_id=0, device=CPU)
    assert isinstance(decoder, decoding.LlamaDecoder)
    alive = torch.arange(len(drawn))
    for step in range(steps):
        said = packing.logits(model, hidden)
        for line, row in enumerate(alive.tolist()):
            ids = PROMPTS[row // k] + drawn[row, :step].tolist()
            expected = model(torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(said[line], expected, atol=2e-4, rtol=1e-4)
        hidden = decoder.step(drawn[alive, step])
        if step == 2:  # rows leave
            kept = torch.tensor([0, 3, 4, 7])
            decoder.keep(kept)
            alive, hidden = alive[kept], hidden[kept]


@torch.no_grad()
def test_a_model_that_is_no_llama_takes_the_general_decoder():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=2, n_head=4)).eval()
    assert not decoding.LlamaDecoder.reads(model)
    assert packing.has_known_head(model)
    decoder, hidden = decoding.begin(model, PROMPTS, k=1, room=2, pad_id=0, device=CPU)
    hidden = decoder.step(torch.tensor([3, 4, 5, 6]))
    for row, prompt in enumerate(PROMPTS):
        expected = model(torch.tensor([[*prompt, 3 + row]])).logits[0, -1]
        assert torch.allclose(packing.logits(model, hidden)[row], expected, atol=1e-4)


@pytest.mark.parametrize("fast", [True, False], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("kind", [llama, lambda: lora(llama(num_key_value_heads=2))])
@torch.no_grad()
def test_sequences_in_one_row_are_read_as_if_each_were_alone(kind, share_rows, fast, monkeypatch):
    if fast and not products.available():
        pytest.skip("no oneDNN with AVX-512 on this processor")
    monkeypatch.setattr(products, "_FAST", fast)
    model = kind()
    generator = torch.Generator().manual_seed(0)
    lengths = [9, 3, 30, 4, 4, 8, 40, 1, 33, 25]
    answers = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in lengths]
    prompts = [PROMPTS[i % 4] for i in range(len(answers))]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=share_rows)
    shape = packed.inputs["input_ids"].shape
    # 166 tokens where the four prompts are read once: two rows, for oneDNN filled up to 3 x 128;
    # ten padded ones hold 410 and more.
    assert shape[0] == (2 if share_rows else 10)
    assert shape.numel() <= (384 if fast else 256) if share_rows else shape.numel() > 410
    said = packing.logits(model, packing.states(model, packed))
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        alone = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        assert torch.allclose(said[packed.rows == i], alone, atol=2e-4, rtol=1e-4)
        assert packed.tokens[packed.rows == i].tolist() == answer
        line = packed.spread(packed.tokens.float())[i].tolist()
        assert line == answer + [0] * (packed.width - len(answer))


@pytest.mark.parametrize(
    ("processor", "mkl_is_slow"),
    [
        ("vendor_id\t: GenuineIntel\ncpu family\t: 6\n", False),
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 25\n", False),  # Zen 4: 512 bits in two halves
        ("vendor_id\t: AuthenticAMD\ncpu family\t: 26\n", True),
        ("", True),
    ],
)
def test_products_go_to_onednn_only_where_mkl_is_slow(monkeypatch, processor, mkl_is_slow):
    monkeypatch.setattr(products, "available", lambda: True)
    monkeypatch.setattr(products, "_processor", lambda: processor)
    assert products.pays() is (mkl_is_slow or not torch.backends.mkl.is_available())
    assert products.rows_multiple() == (products.ROWS if products._FAST else 1)


@pytest.mark.parametrize("short", [256, 16], ids=["short rows", "long rows"])
@pytest.mark.parametrize("fast", [True, False], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize("share_rows", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_compact_llama_has_the_values_and_gradients_of_transformers(
    tied, share_rows, fast, short, monkeypatch
):
    if fast and not products.available():
        pytest.skip("no oneDNN with AVX-512 on this processor")
    monkeypatch.setattr(products, "_FAST", fast)
    monkeypatch.setattr(packing.llama, "SHORT", short)
    model = llama(tie_word_embeddings=tied)
    generator = torch.Generator().manual_seed(0)
    lengths = (9, 30, 4, 40, 33, 21, 17, 38)
    answers = [torch.randint(1, 61, (n,), generator=generator).tolist() for n in lengths]
    prompts = [*PROMPTS, *PROMPTS]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=share_rows)
    weights = torch.randn(len(packed.tokens), 32, generator=generator)
    found = []
    for compact in (True, False):
        if not compact:
            monkeypatch.setattr(packing.llama, "reads", lambda trunk: False)
        assert packing.llama.reads(model.base_model) == compact
        model.zero_grad()
        hidden = packing.states(model, packed)
        loss = (hidden * weights).sum() + ppo_math.read_logits(
            packing.logits(model, hidden), packed.tokens
        )[0].sum()
        loss.backward()
        found.append((hidden.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}))
    assert torch.allclose(found[0][0], found[1][0], atol=1e-4, rtol=1e-4)
    for name, gradient in found[0][1].items():
        expected = found[1][1][name]
        assert float((gradient - expected).norm()) < 1e-4 * float(expected.norm()), name


@pytest.mark.parametrize(("fast", "width"), [(True, 256), (False, 208)], ids=["oneDNN", "MKL"])
def test_rows_of_long_sequences_are_no_longer_than_the_longest_needs(fast, width, monkeypatch):
    monkeypatch.setattr(products, "_FAST", fast)
    answers = [[1] * n for n in (200, 200, 100)]  # one row of 512 would hold them in fewer tokens
    prompts = [[2, i] for i in range(3)]
    packed = packing.pack(prompts, answers, pad_id=0, device=CPU, share_rows=True)
    assert tuple(packed.inputs["input_ids"].shape) == (3, width)


def test_models_that_can_not_share_rows_are_found_out():
    from transformers import AutoConfig, AutoModel

    assert packing.can_share_rows(llama().base_model)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=1, n_head=4))
    assert packing.can_share_rows(gpt.eval().base_model)
    small = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
    mamba = AutoConfig.for_model("mamba", **small, state_size=4)
    bert = AutoConfig.for_model("bert", **small, num_attention_heads=4, intermediate_size=48)
    for config in (mamba, bert):
        assert not packing.can_share_rows(AutoModel.from_config(config).eval())


def test_an_output_head_that_does_more_is_noticed():
    model = llama()
    assert packing.has_known_head(model)
    model.lm_head.forward = lambda x: torch.nn.functional.linear(x, model.lm_head.weight) ** 3
    assert packing.has_known_head(model)  # a head of its own is used as it is
    plain = model.forward

    def more(**kwargs):
        out = plain(**kwargs)
        out.logits = out.logits + 7 * torch.arange(61)
        return out

    model.forward = more
    assert not packing.has_known_head(model)


@pytest.mark.parametrize("name", ["gemma2", "cohere", "granite"])
def test_scales_and_soft_caps_of_known_architectures_are_applied(name):
    from transformers import AutoConfig

    extra = {"gemma2": {"head_dim": 8, "final_logit_softcapping": 2.0}}.get(name, {})
    extra |= {"granite": {"logits_scaling": 3.0}, "cohere": {"logit_scale": 0.1}}.get(name, {})
    config = AutoConfig.for_model(
        name,
        vocab_size=61,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        initializer_range=0.5,
        **extra,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    packed = packing.pack(PROMPTS, [[1, 2]] * 4, pad_id=0, device=CPU, share_rows=False)
    with torch.no_grad():
        said = packing.logits(model, packing.states(model, packed))
        expected = model(torch.tensor([[*PROMPTS[1], 1]])).logits[0]
    assert torch.allclose(said[packed.rows == 1], expected, atol=1e-4, rtol=1e-4)


def test_what_is_drawn_does_not_depend_on_who_shares_the_batch():
    model = llama()

    def draw(**options):
        groups = sampling.sample(
            model,
            PROMPTS,
            k=3,
            max_new_tokens=9,
            temperature=0.9,
            stop_ids=[1, 2, 3, 4, 5],
            pad_id=0,
            generator=torch.Generator().manual_seed(5),
            **options,
        )
        return [[answer.tokens for answer in group] for group in groups]

    whole = draw()
    assert draw(batch_size=3) == whole
    shares = [draw(share=slice(rank, None, 2)) for rank in range(2)]
    assert [shares[i % 2][i] for i in range(4)] == whole
    assert shares[0][1] == []


def test_values_are_told_while_sampling():
    model = llama()
    weights = torch.randn(32, generator=torch.Generator().manual_seed(0))
    answers = sampling.sample(
        model,
        PROMPTS,
        max_new_tokens=5,
        temperature=1.0,
        stop_ids=[1],
        pad_id=0,
        generator=torch.Generator().manual_seed(5),
        value_of=lambda hidden: hidden @ weights,
    )
    packed = packing.pack(
        PROMPTS, [a[0].tokens for a in answers], pad_id=0, device=CPU, share_rows=True
    )
    with torch.no_grad():
        values = packing.states(model, packed) @ weights
    told = torch.tensor([v for a in answers for v in a[0].values])
    assert torch.allclose(told, values, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("train_entropy", [True, False])
def test_reading_logits_has_the_gradient_of_plain_operations(temperature, train_entropy):
    torch.manual_seed(0)
    tokens = torch.tensor([3, 0, 6, 6, 2])
    weights = torch.randn(2, 5, dtype=torch.float64).float()

    def loss(read, logits):
        picked, entropy = read(logits)
        return (weights[0] * picked).sum() + (weights[1] * entropy).sum() * train_entropy

    def plain(logits):
        scaled = logits / temperature
        logprobs = torch.log_softmax(scaled, dim=-1)
        entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
        return ppo_math.selected_logprobs(scaled, tokens), entropy

    def ours(logits):
        return ppo_math.read_logits(
            logits, tokens, temperature=temperature, train_entropy=train_entropy
        )

    first = torch.randn(5, 7, requires_grad=True)
    second = first.detach().clone().requires_grad_()
    one, two = loss(plain, first), loss(ours, second)
    assert float(one.detach()) == pytest.approx(float(two.detach()), rel=1e-5)
    one.backward()
    two.backward()
    assert torch.allclose(first.grad, second.grad, atol=1e-6)


def test_parts_hold_every_row_once_within_both_limits():
    lengths = [9, 3, 30, 4, 4, 8, 2, 100]
    parts = list(packing.parts_by_length(lengths, range(8), size=3, tokens=32))
    assert sorted(row for part in parts for row in part) == list(range(8))
    for part in parts:
        assert len(part) <= 3
        assert len(part) == 1 or len(part) * max(lengths[i] for i in part) <= 32
    assert len(list(packing.parts_by_length(lengths, range(8), size=8, tokens=0))) == 1


def test_a_reward_model_scores_packed_texts_as_it_does_padded_ones(talker, monkeypatch):
    from rlhf.training import scorers

    model = scorers.RewardModel.new(
        talker, ["helpfulness", "safety"], use_prior=True, max_length=64, device="cpu"
    )
    asked = [[{"role": "user", "content": "please paint my lamp" + " nice" * i}] for i in range(9)]
    texts = ["", "yes", *["sorry no " * i for i in range(1, 8)]]
    found = []
    for compact in (True, False):
        if not compact:
            monkeypatch.setattr(scorers, "reads", lambda trunk: False)
        scores = model.score(asked, texts, standardised=False)
        found.append(torch.stack([*scores.values()]))
    assert found[0].std() > 0.1
    assert torch.allclose(found[0], found[1], atol=1e-3, rtol=1e-3)
