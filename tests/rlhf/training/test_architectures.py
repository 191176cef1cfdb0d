"""Every architecture says the same three ways: sampled, read in packed rows, and by its own forward pass."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from rlhf.training import architecture, decoding, forward_pass, packing, sampling
from tests.rlhf.training.small_llamas import CPU

VOCABULARY = 61
SIZE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256}
WINDOW = {"sliding_window": 8}
QUERY = {"query_pre_attn_scalar": 8}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MAMBA2 = {
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_n_groups": 1,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
}
ARCHITECTURES = {
    "llama": ("llama", SIZE),
    "gpt2": ("gpt2", GPT),
    "gptj": ("gptj", GPT | {"rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", SIZE),
    "gpt_neo": (
        "gpt_neo",
        {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 8,
            "max_position_embeddings": 256,
        },
    ),
    "opt": ("opt", {**SIZE, "ffn_dim": 64, "word_embed_proj_dim": 32}),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}),
    "phi": ("phi", SIZE),
    "stablelm": ("stablelm", SIZE),
    "qwen2": ("qwen2", SIZE),
    "qwen3": ("qwen3", SIZE),
    "olmo2": ("olmo2", SIZE),
    "mistral with a window": ("mistral", SIZE | WINDOW),
    "mixtral with a window": ("mixtral", SIZE | WINDOW | EXPERTS),
    "starcoder2 with a window": ("starcoder2", SIZE | WINDOW),
    "gemma": ("gemma", SIZE),
    "gemma2": ("gemma2", SIZE | WINDOW | QUERY),
    "gemma3": ("gemma3_text", SIZE | WINDOW | QUERY),
    "cohere2": ("cohere2", SIZE | WINDOW),
    "phi3 with a window": (
        "phi3",
        SIZE | WINDOW | {"pad_token_id": 0, "original_max_position_embeddings": 512},
    ),
    "qwen2 with a window": (
        "qwen2",
        SIZE | WINDOW | {"use_sliding_window": True, "max_window_layers": 0},
    ),
    "gpt_oss at its window of 128": ("gpt_oss", SIZE | EXPERTS | {"sliding_window": 128}),
    "olmo2 with a window that it does not read": ("olmo2", SIZE | WINDOW),
    "llama4": (
        "llama4_text",
        SIZE
        | {
            "num_key_value_heads": 4,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 8,
            "intermediate_size_mlp": 64,
        },
    ),
    "mamba": ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "expand": 2}),
    "mamba2": (
        "mamba2",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 8,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 1,
            "expand": 2,
            "chunk_size": 16,
        },
    ),
    "rwkv": (
        "rwkv",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "attention_hidden_size": 32,
            "intermediate_size": 64,
            "context_length": 256,
        },
    ),
    "jamba": (
        "jamba",
        SIZE
        | {
            "num_experts": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "mamba_d_state": 8,
            "use_mamba_kernels": False,
        },
    ),
    "lfm2": (
        "lfm2",
        SIZE
        | {
            "layer_types": ["conv", "full_attention"],
            "block_multiple_of": 8,
            "block_ff_dim": 64,
            "conv_L_cache": 3,
        },
    ),
    "granite hybrid": (
        "granitemoehybrid",
        SIZE
        | MAMBA2
        | EXPERTS
        | {
            "layer_types": ["mamba", "attention"],
            "mamba_expand": 2,
            "shared_intermediate_size": 32,
        },
    ),
    "falcon h1": (
        "falcon_h1",
        SIZE | MAMBA2 | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_expand": 1},
    ),
    "the first gpt": ("openai-gpt", GPT),
}
LONG_PROMPT = {"gpt_oss at its window of 128": 140}


def random_model(name, vocabulary=VOCABULARY):
    """A small random model of an architecture, with weights so large that a wrong mask shows."""
    kind, settings = ARCHITECTURES[name]
    ids = {"vocab_size": vocabulary, "eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    config = CONFIG_MAPPING[kind](**settings | ids)
    if "does not read" in name:
        config.sliding_window = 8
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    torch.manual_seed(1)
    for parameter_name, parameter in model.named_parameters():
        recurrent = "A_log" in parameter_name or "conv" in parameter_name
        if parameter.dim() == 2 and not recurrent:
            torch.nn.init.normal_(parameter, std=0.15)
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
@torch.no_grad()
def test_sampling_and_packing_give_the_models_own_log_probabilities(name):
    model = random_model(name)
    long = LONG_PROMPT.get(name, 20)
    prompts = [[11, 12, 13], [3 + (7 * i) % 50 for i in range(long)]]
    answers = sampling.sample(
        model,
        prompts,
        k=2,
        max_new_tokens=9,
        temperature=1.0,
        stop_ids=[1],
        pad_id=0,
        generator=torch.Generator().manual_seed(0),
    )
    rows = [(prompt, a) for prompt, group in zip(prompts, answers, strict=True) for a in group]
    packed = packing.pack(
        [prompt for prompt, _ in rows],
        [answer.tokens for _, answer in rows],
        pad_id=0,
        device=CPU,
        share_rows=forward_pass.can_share_rows(architecture.trunk_of(model)),
    )
    logits = forward_pass.logits(model, forward_pass.hidden_states(model, packed))
    read = torch.log_softmax(logits.float(), dim=-1).gather(1, packed.tokens[:, None])[:, 0]
    for i, (prompt, answer) in enumerate(rows):
        ids = torch.tensor([[*prompt, *answer.tokens[:-1]]])
        own = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0].float(), dim=-1)
        expected = own[len(prompt) - 1 :].gather(1, torch.tensor(answer.tokens)[:, None])[:, 0]
        assert torch.allclose(torch.tensor(answer.logprobs), expected, atol=1e-3)
        assert torch.allclose(read[packed.rows == i], expected, atol=1e-3)


def test_a_window_is_kept_in_the_cache_and_one_that_the_model_does_not_read_is_not():
    windowed = decoding.agreeing_decoder(random_model("mistral with a window"))
    assert windowed is decoding.CAUSAL_DECODERS["cache"]
    stray = decoding.agreeing_decoder(random_model("olmo2 with a window that it does not read"))
    assert stray is decoding.CAUSAL_DECODERS["cache of all tokens"]


def test_a_model_whose_cache_can_not_be_used_says_so_once(capsys):
    model = random_model("mamba")
    for _ in range(2):
        assert decoding.agreeing_decoder(model) is decoding.RereadingDecoder
    assert capsys.readouterr().out.count("slow for long responses") == 1


def test_a_row_longer_than_the_window_keeps_rows_apart():
    assert forward_pass.can_share_rows(random_model("qwen2").base_model)
    assert not forward_pass.can_share_rows(random_model("qwen2 with a window").base_model)
