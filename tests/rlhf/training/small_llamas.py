"""Small Llamas with random weights, and prompts for them, in token ids."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

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
