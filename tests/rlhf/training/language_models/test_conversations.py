"""What begins a text (a Llama's <s>) stands before a prompt exactly once, as the model learnt it."""

import pytest
import torch

from rlhf.training import ptx
from rlhf.training.doctor.examination import examine
from rlhf.training.language_models import conversations
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models.model import RewardModel
from tests.rlhf.training.tiny import ask, make_policy, prompt, run_folder

BEGIN = "<s>"
WRITES_IT = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def make(tmp_path):
    """A policy whose tokenizer puts marks around a text by itself, like a base Llama's."""

    def made(around="<s> $A", template=None):
        from safetensors.torch import load_file, save_file
        from tokenizers.processors import TemplateProcessing
        from transformers import AutoTokenizer

        folder = make_policy(tmp_path / "policy")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"bos_token": BEGIN})
        tokenizer.chat_template = template
        marks = [(t, tokenizer.convert_tokens_to_ids(t)) for t in (BEGIN, "<|end|>")]
        if around:
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single=around, special_tokens=marks
            )
        (folder / "chat_template.jinja").unlink()
        tokenizer.save_pretrained(folder)
        # A row of the embeddings for the new token.
        weights = load_file(folder / "model.safetensors")
        table = weights["model.embed_tokens.weight"]
        weights["model.embed_tokens.weight"] = torch.cat([table, table[:1]])
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = folder / "config.json"
        size = len(table)
        config.write_text(
            config.read_text().replace(f'"vocab_size": {size}', f'"vocab_size": {size + 1}')
        )
        return folder

    return made


def load(folder):
    return load_policy(str(folder), "policy", device=torch.device("cpu"))


QUESTION = ask("please paint my red lamp")


@pytest.mark.parametrize("around", ["<s> $A", "<s> $A <|end|>"])
def test_without_a_template_a_prompt_begins_as_the_tokenizer_begins_a_text(make, around):
    policy = load(make(around))
    ids = policy.encode_prompt(QUESTION, "p1", room=8)
    own = policy.tokenizer(policy.render(QUESTION))["input_ids"]
    # What the tokenizer puts behind a text is left out: the answer follows.
    assert ids == own[: len(own) - around.count("<|end|>")]
    assert ids.count(policy.tokenizer.bos_token_id) == 1


def test_where_the_tokenizer_adds_nothing_nothing_is_added(make):
    policy = load(make(around=""))
    ids = policy.encode_prompt(QUESTION, "p1", room=8)
    assert ids == conversations.encode(policy.tokenizer, policy.render(QUESTION))
    assert policy.tokenizer.bos_token_id not in ids


def test_a_template_that_writes_it_is_not_added_to(make):
    policy = load(make(template=WRITES_IT))
    ids = policy.encode_prompt(QUESTION, "p1", room=8)
    assert ids[0] == policy.tokenizer.bos_token_id
    assert ids.count(policy.tokenizer.bos_token_id) == 1


def test_a_template_that_leaves_it_out_has_the_last_word(make):
    policy = load(make(template=WRITES_IT.replace("{{ bos_token }}", "")))
    ids = policy.encode_prompt(QUESTION, "p1", room=8)
    assert policy.tokenizer.bos_token_id not in ids


def test_texts_and_demonstrations_that_ppo_keeps_likely_begin_alike(make, tmp_path):
    policy = load(make())
    rows = [{"text": "red lamp"}, {"messages": QUESTION, "response": "nice"}]
    folder = run_folder(tmp_path / "run", {}, ptx=rows)
    begin = policy.tokenizer.bos_token_id
    assert [e.prompt[0] for e in ptx.read_examples(folder, policy, "refuse")] == [begin, begin]


@pytest.mark.parametrize("max_length", [64, 16])
def test_a_reward_model_reads_it_too_also_where_the_prompt_is_cut(make, max_length):
    options = {"use_prior": False, "max_length": max_length, "device": "cpu"}
    model = RewardModel.new(str(make()), ["helpfulness"], **options)
    text = model.tokenize([ask("red lamp " * 9)], ["nice chair"])[0]
    assert text.prompt[0] == model.tokenizer.bos_token_id
    assert [*text.prompt, *text.response].count(model.tokenizer.bos_token_id) == 1
    assert len(text.prompt) + len(text.response) <= max_length


def test_the_doctor_misses_it_only_where_a_template_leaves_it_out(make, tmp_path):
    for template, missed in ((None, False), (WRITES_IT.replace("{{ bos_token }}", ""), True)):
        folder = make(template=template)
        config = {"policy": str(folder), "k": 1, "max_new_tokens": 4}
        run = run_folder(tmp_path / "run", config, prompts=[prompt(0)])
        messages = [f.message for f in examine(run, probe=False).findings]
        assert any("does not put it there" in message for message in messages) == missed
