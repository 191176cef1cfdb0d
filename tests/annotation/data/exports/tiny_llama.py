"""A model so small that a step of any trainer takes a moment."""

import os

import pytest

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def tiny_llama():
    """A tokenizer with a chat template, and the configuration of a Llama of a few thousand weights."""
    pytest.importorskip("trl")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>", "<pad>", "</s>", "<user>", "<assistant>", "<system>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(["Give it a little water."], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=256,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    return tokenizer, config


def once(tmp_path):
    """Settings of any of TRL's trainers: one step on the CPU."""
    return {
        "output_dir": str(tmp_path / "run"), "max_steps": 1, "per_device_train_batch_size": 4,
        "report_to": "none", "use_cpu": True, "save_strategy": "no", "max_length": 128,
        "logging_steps": 1, "disable_tqdm": True, "bf16": False, "gradient_checkpointing": False,
    }  # fmt: skip
