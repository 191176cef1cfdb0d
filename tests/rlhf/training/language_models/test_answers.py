"""Whatever the chat template: prompt, answer and end are the same tokens in every stage, or the
first token that differs is named."""

import pytest
import torch
from transformers import AutoTokenizer

from rlhf.training import dpo
from rlhf.training.configs import DPOConfig
from rlhf.training.data import Judgment, Prompt
from rlhf.training.doctor.examination import examine
from rlhf.training.language_models import answers, conversations
from rlhf.training.language_models.policy import load_policy
from rlhf.training.reward_models import texts
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.tiny import ask, make_policy, prompt, run_folder

TURNS = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
BEGIN = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
TEMPLATES = {
    "a system turn of its own": (
        "{% if messages[0].role != 'system' %}<|system|>be nice<|end|>\n{% endif %}" + TURNS + BEGIN
    ),
    "no system role": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + TURNS
        + BEGIN
    ),
    "EOS inside the prompt": TURNS + BEGIN,
    "trims": TURNS.replace("m.content", "m.content | trim") + BEGIN,
    "a new line behind the end": TURNS.replace("<|end|>", "<|end|>\n") + BEGIN,
    "a space before an answer": (
        "{% for m in messages %}{% if m.role == 'user' %}my {{ m.content }} your{% else %}"
        " {{ m.content }}<|end|>{% endif %}{% endfor %}"
    ),
    "another token at the end": TURNS.replace("<|end|>", "<|system|>") + BEGIN,
    "nothing at the end": TURNS.replace("<|end|>", "") + BEGIN,
    "the day's date": "{{ strftime_now('%d %b %Y') }}" + TURNS + BEGIN,
}
ANSWER = "sorry no"


@pytest.fixture
def load(tmp_path):
    def loaded(template):
        folder = make_policy(tmp_path / "policy")
        (folder / "chat_template.jinja").write_text(template)
        return load_policy(str(folder), "policy", device=torch.device("cpu"))

    return loaded


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_sampling_training_and_scoring_have_the_tokens_that_the_template_writes(load, template):
    policy, question = load(template), ask("please paint my red lamp")
    ours = policy.prompt_ids(question) + policy.encode_response(ANSWER)

    text = texts.tokenize(policy.tokenizer, [question], [ANSWER], max_length=128, is_t5=False)[0]
    assert [*text.prompt, *text.response] == ours

    judged = Judgment(Prompt("p", question), "ada", (ANSWER, "yes"), {"helpfulness": (1, 2)})
    config = DPOConfig(policy="…", axis="helpfulness", heldout_share=0)
    (row,), _, _ = dpo.encode_pairs(policy, [judged], config)
    assert row["prompt_ids"] + row["chosen_ids"] == ours

    turns = [*question, {"role": "assistant", "content": ANSWER}]
    whole = conversations.apply_template(policy.tokenizer, turns, add_generation_prompt=False)
    written = conversations.encode(policy.tokenizer, whole)
    if template != TEMPLATES["nothing at the end"]:
        assert written[: len(ours)] == ours
        assert not policy.form.difference
    # An answer ends where the policy stops, and other programs stop there too.
    assert ours[-1] in policy.stop_ids
    assert policy.decode(policy.encode_response(ANSWER)) == ANSWER
    ends = policy.model.generation_config.eos_token_id
    assert set(policy.stop_ids) == set(ends if isinstance(ends, list) else [ends])


def test_what_the_template_writes_behind_the_end_is_trained_by_no_stage(load):
    policy = load(TEMPLATES["a new line behind the end"])
    assert policy.form.after == "\n"
    assert policy.encode_response(ANSWER)[-1] == policy.tokenizer.eos_token_id


def test_the_end_is_the_templates_where_it_is_not_the_tokenizers(load):
    policy = load(TEMPLATES["another token at the end"])
    tokenizer = policy.tokenizer
    assert tokenizer.convert_ids_to_tokens(policy.encode_response("no")[-1]) == "<|system|>"
    assert policy.stop_ids == [tokenizer.eos_token_id, policy.form.end]


@pytest.mark.parametrize(
    ("template", "ours", "theirs"),
    [
        (TEMPLATES["nothing at the end"], "<|end|>", "nothing"),
        # As Qwen 3: thoughts before the answer, which are no part of an answer's text.
        (TURNS.replace("{{ m.content }}", "{% if m.role == 'assistant' %}burn burn{% endif %}"
                                          "{{ m.content }}") + BEGIN, "B", "'burn'"),
    ],
)  # fmt: skip
def test_a_token_that_differs_is_named_by_stage_and_doctor(
    load, tmp_path, capsys, template, ours, theirs
):
    policy = load(template)
    said = capsys.readouterr().out
    assert f"is {ours!r} in what is sampled" in said
    assert f"and {theirs} in a whole conversation" in said
    place = int(said.split("Token ")[1].split()[0])
    first = conversations.encode(policy.tokenizer, policy.render(answers.QUESTION))
    if theirs != "nothing":
        assert place == len(first) + 1
    config = {"policy": str(tmp_path / "policy"), "k": 1, "max_new_tokens": 4}
    run = run_folder(tmp_path / "run", config, prompts=[prompt(0)])
    findings = [
        f for f in examine(run, probe=False).findings if f.message == policy.form.difference
    ]
    assert [f.level for f in findings] == ["warning"]


def test_a_date_is_the_same_every_day(load):
    policy = load(TEMPLATES["the day's date"])
    assert policy.render(ask("yes")).startswith("26 Jul 2024")


def test_a_template_without_a_system_role_refuses_the_turn_by_name(load):
    policy = load(TEMPLATES["no system role"])
    with pytest.raises(InputError, match="refuses a conversation of system, user: no system role"):
        policy.render([{"role": "system", "content": "be nice"}, *ask("yes")])


def test_without_a_template_an_answer_begins_as_in_running_text(tmp_path):
    folder = make_policy(tmp_path / "policy")
    (folder / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    form = answers.form_of(tokenizer)
    assert form.lead == " "
    prompt_text = conversations.render(tokenizer, ask("yes"))
    assert conversations.encode(tokenizer, prompt_text) + form.encode(tokenizer, "sorry no") == (
        conversations.encode(tokenizer, f"{prompt_text} sorry no")
    )
    assert form.encode_all(tokenizer, ["no", ""]) == [form.encode(tokenizer, "no"), []]
