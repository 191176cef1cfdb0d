"""The real server with a real tiny model: two people's answers at once, each at its own temperature."""

import json
import threading
import time

import pytest

from annotation.judge.candidates import AnswerReport, CandidateError
from rlhf.launchers import processes
from rlhf.serving import client, server_process
from rlhf.training.server_guard import KEY
from tests.rlhf.training.tiny import make_policy


def make_llama(folder, *, layers=2, positions=128):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers}
    sizes["max_position_embeddings"] = positions
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return write_model(folder, LlamaForCausalLM, LlamaConfig, **sizes, **heads)


def make_gpt2(folder):
    """With learned positions: an engine that counts them wrongly shows here."""
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    return write_model(folder, GPT2LMHeadModel, GPT2Config, **sizes)


def write_model(folder, model, config, **sizes):
    """Random and far from uniform, so that its likeliest words vary; it never ends by itself.

    Its logits are ten times a random model's: two words .04 apart would be among forty, and at a
    temperature of .01 the second of such two is taken in one draw of fifty.
    """
    import torch

    make_policy(folder)
    words = json.loads((folder / "config.json").read_text())["vocab_size"]
    torch.manual_seed(1)
    written = model(
        config(
            vocab_size=words,
            initializer_range=0.5,
            tie_word_embeddings=False,
            eos_token_id=None,
            bos_token_id=None,
            pad_token_id=0,
            **sizes,
        )
    )
    with torch.no_grad():
        written.lm_head.weight *= 10
    written.save_pretrained(folder)
    return folder


def served(folder, tmp_path, settings):
    port = server_process.free_port()
    with (tmp_path / "log.txt").open("wb") as output:
        process = processes.start(
            server_process.command(folder, port),
            cwd=settings.BASE_DIR,
            env={**settings.TRAINING_ENVIRONMENT, KEY: "right"},
            output=output,
        )
    until = time.monotonic() + 120
    while not client.is_healthy(port):
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        assert time.monotonic() < until
        time.sleep(0.2)
    return process, port


def ask(folder, port, temperature, *, words="please paint my red lamp", most=40):
    """The answer's pieces with when each came, and how many tokens it says that it has."""
    report = AnswerReport()
    body = {
        "model": str(folder),
        "messages": [{"role": "user", "content": words}],
        "temperature": temperature,
        "max_tokens": most,
        "stream": True,
    }
    pieces = [
        (time.monotonic(), piece)
        for piece in client.stream_completion(
            f"http://127.0.0.1:{port}/v1", body, report, headers={"Authorization": "Bearer right"}
        )
    ]
    return pieces, report


def likeliest(folder, words, most):
    """What the model writes by itself when it always takes the likeliest word."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": words}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    with torch.no_grad():
        written = model.generate(**inputs, do_sample=False, max_new_tokens=most)
    return tokenizer.decode(written[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("make", [make_llama, make_gpt2])
def test_two_answers_grow_together_each_at_its_own_temperature(make, tmp_path, settings):
    settings.POLICY_DEVICE = "cpu"
    folder = make(tmp_path / "policy")
    process, port = served(folder, tmp_path, settings)
    try:
        ask(folder, port, 1.0, most=4)
        answers = {}
        threads = [
            threading.Thread(target=lambda t=t: answers.update({t: ask(folder, port, t)}))
            for t in (0.01, 20.0)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (cold, cold_report), (hot, _) = answers[0.01], answers[20.0]
        # 1. Each had begun before the other had ended.
        assert cold[0][0] < hot[-1][0]
        assert hot[0][0] < cold[-1][0]
        # 2. The cold one is the model's likeliest, the hot one is not, and no two hot ones are alike.
        words = "".join(piece for _, piece in cold)
        assert words == likeliest(folder, "please paint my red lamp", 40)
        hot_ones = {"".join(p for _, p in ask(folder, port, 20.0)[0]) for _ in range(3)}
        assert len(hot_ones | {"".join(p for _, p in hot), words}) == 5
        assert 0 < cold_report.n_tokens <= 40
        # 3. A person who writes more than fits the context is told so; the others go on.
        with pytest.raises(CandidateError, match="too long"):
            ask(folder, port, 1.0, words="lamp " * 300)
        _, report = ask(folder, port, 1.0, words="lamp " * 90, most=400)
        assert report.n_tokens < 40  # no further than its context
        assert ask(folder, port, 1.0, most=4)[0]
    finally:
        processes.stop(process, grace=5.0)
