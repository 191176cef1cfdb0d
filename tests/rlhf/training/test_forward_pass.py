"""A trunk and its head, called apart, give what the whole model gives."""

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from rlhf.training import forward_pass, packing
from tests.rlhf.training.small_llamas import CPU, PROMPTS, llama


def test_models_that_can_not_share_rows_are_recognized():
    from transformers import AutoConfig, AutoModel

    assert forward_pass.can_share_rows(llama().base_model)
    gpt = GPT2LMHeadModel(GPT2Config(vocab_size=61, n_embd=32, n_layer=1, n_head=4))
    assert forward_pass.can_share_rows(gpt.eval().base_model)
    small = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2}
    mamba = AutoConfig.for_model("mamba", **small, state_size=4)
    bert = AutoConfig.for_model("bert", **small, num_attention_heads=4, intermediate_size=48)
    for config in (mamba, bert):
        assert not forward_pass.can_share_rows(AutoModel.from_config(config).eval())


def test_an_output_head_that_does_more_is_recognized():
    model = llama()
    assert forward_pass.has_known_head(model)
    model.lm_head.forward = lambda x: torch.nn.functional.linear(x, model.lm_head.weight) ** 3
    assert forward_pass.has_known_head(model)  # a head of its own is used as it is
    plain = model.forward

    def more(**kwargs):
        out = plain(**kwargs)
        out.logits = out.logits + 7 * torch.arange(61)
        return out

    model.forward = more
    assert not forward_pass.has_known_head(model)


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
        said = forward_pass.logits(model, forward_pass.hidden_states(model, packed))
        expected = model(torch.tensor([[*PROMPTS[1], 1]])).logits[0]
    assert torch.allclose(said[packed.rows == 1], expected, atol=1e-4, rtol=1e-4)
