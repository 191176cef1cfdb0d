"""The base policy's tokenizer: words can be copied, and nothing that a person types is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rlhf.training.word_tokenizer import build_tokenizer

TEXTS = ["How do I clean my uncle's kettle?", "To clean your uncle's kettle, first rinse it."]
TOKENIZER = build_tokenizer(TEXTS, max_length=64)


def test_a_word_is_the_same_single_token_in_question_and_answer():
    question, answer = (TOKENIZER.tokenize(text) for text in TEXTS)
    for word in ("Ġuncle", "'s", "Ġkettle", "Ġclean"):
        assert question.count(word) == answer.count(word) == 1


@given(st.text())
def test_any_text_survives_encoding_and_decoding(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text), skip_special_tokens=False) == text


@pytest.mark.parametrize("text", [*TEXTS, "  two  spaces ,\n\n a zebra's naïve 🦓 (ok)!\t"])
def test_a_saved_tokenizer_is_read_back_by_transformers_and_decodes_exactly(tmp_path, text):
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.encode(text) == TOKENIZER.encode(text)
    assert again.decode(again.encode(text)) == text
    assert again.chat_template == TOKENIZER.chat_template


def test_the_chat_template_marks_roles_and_a_prompt_is_a_prefix_of_its_answer():
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": TEXTS[0]}]
    prompt = TOKENIZER.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == f"<|system|>Be kind.<|end|><|user|>{TEXTS[0]}<|end|><|assistant|>"
    whole = TOKENIZER.apply_chat_template(
        [*messages, {"role": "assistant", "content": TEXTS[1]}], tokenize=False
    )
    assert whole == f"{prompt}{TEXTS[1]}<|end|>"
    ids = TOKENIZER.encode(whole, add_special_tokens=False)
    assert ids[: len(TOKENIZER.encode(prompt))] == TOKENIZER.encode(prompt)
    assert ids[-1] == TOKENIZER.eos_token_id
    assert TOKENIZER.decode(ids, skip_special_tokens=True).endswith(TEXTS[1])


def test_padding_is_not_the_end_of_a_turn():
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id
