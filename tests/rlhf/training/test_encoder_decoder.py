"""T5 and its like through the whole engine: what a small random one says is what transformers says,
and what it learns it has from the reward."""

import itertools
import json
import random
import time

import pytest
import torch

from rlhf.training import architecture, ppo_models, sampling, sft
from rlhf.training.configs import PPOConfig
from rlhf.training.language_models import conversations
from rlhf.training.language_models.policy import add_lora, load_policy
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.conftest import HARMFUL, finish, make_rewards, nice, weights
from tests.rlhf.training.test_ppo_resume import without_clocks
from tests.rlhf.training.tiny import (
    WORDS,
    ask,
    judgment,
    make_t5,
    prompt,
    result_of,
    rows_of,
    run,
    run_folder,
    run_together,
    start,
)

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14], [15, 16]]


def load(folder):
    return load_policy(str(folder), "policy", device=torch.device("cpu"))


def opinionated(policy):
    """Larger random weights, so that a wrong mask or position shows."""
    torch.manual_seed(1)
    for parameter in policy.model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return policy


@pytest.fixture(params=["t5", "bart", "t5 with adapters"])
def policy(request, tmp_path):
    kind, _, adapted = request.param.partition(" ")
    found = opinionated(load(make_t5(tmp_path / "policy", kind=kind)))
    if adapted:
        add_lora(found, rank=2, alpha=8.0)
        for name, parameter in found.model.named_parameters():
            if "lora_B" in name:  # they start at 0, and would change nothing
                torch.nn.init.normal_(parameter, std=0.3)
    return found


def draw(policy, prompts=PROMPTS, *, k=3, **options):
    settings = {
        "max_new_tokens": 12,
        "temperature": 0.7,
        # A fifth of the vocabulary ends the response, so rows leave the batch at different times.
        "stop_ids": list(range(1, 270, 5)),
        "pad_id": policy.pad_id,
        "generator": torch.Generator().manual_seed(0),
    }
    return sampling.sample(policy.model, prompts, k=k, **settings | options)


def told_by_transformers(model, prompt_ids, tokens, temperature=0.7):
    """Log-probabilities by one teacher-forced pass of the model itself over one row."""
    first = architecture.unwrap_model(model).config.decoder_start_token_id
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([prompt_ids]),
            decoder_input_ids=torch.tensor([[first, *tokens[:-1]]]),
        ).logits[0]
    scaled = torch.log_softmax(logits / temperature, dim=-1)
    return scaled.gather(1, torch.tensor(tokens)[:, None])[:, 0]


# --- Sampling and reading ---------------------------------------------------------------------


def test_kept_log_probabilities_are_those_of_transformers_teacher_forced(policy):
    answers = draw(policy)
    assert len({len(a.tokens) for group in answers for a in group if a.finished}) > 2
    for asked, group in zip(PROMPTS, answers, strict=True):
        for answer in group:
            expected = told_by_transformers(policy.model, asked, answer.tokens)
            assert torch.allclose(torch.tensor(answer.logprobs), expected, atol=1e-4)


def test_what_is_read_together_is_what_each_is_alone(policy):
    """Prompts and responses of any length in one batch: neither padding nor neighbours show."""
    answers = [group[0].tokens for group in draw(policy)]
    packed, hidden = policy.read(PROMPTS, answers)
    assert hidden.shape == (sum(map(len, answers)), policy.hidden_size)
    logprobs = torch.log_softmax(policy.logits(hidden) / 0.7, dim=-1)
    for i, (asked, answer) in enumerate(zip(PROMPTS, answers, strict=True)):
        mine = packed.rows == i
        assert packed.tokens[mine].tolist() == answer
        found = logprobs[mine].gather(1, torch.tensor(answer)[:, None])[:, 0]
        expected = told_by_transformers(policy.model, asked, answer)
        assert torch.allclose(found, expected, atol=1e-4)


def test_a_prompts_answers_do_not_depend_on_the_prompts_beside_it(policy):
    numbers = {"temperature": 1e-4, "k": 1}  # the likeliest, so that draws can be compared
    together = [group[0].tokens for group in draw(policy, **numbers)]
    alone = [draw(policy, [asked], **numbers)[0][0].tokens for asked in PROMPTS]
    assert together == alone


def test_the_decoder_does_read_the_prompt(policy):
    answer = [20, 21, 1]
    one = told_by_transformers(policy.model, PROMPTS[0], answer)
    _, hidden = policy.read([PROMPTS[2]], [answer])
    other = torch.log_softmax(policy.logits(hidden) / 0.7, dim=-1)
    assert not torch.allclose(other.gather(1, torch.tensor(answer)[:, None])[:, 0], one, atol=0.01)


# --- Text to tokens ---------------------------------------------------------------------------


def test_without_a_template_one_turn_is_read_as_it_stands_and_more_are_named(tmp_path):
    policy = load(make_t5(tmp_path))
    end = policy.tokenizer.eos_token_id
    ids = policy.encode_prompt(ask("please paint"), "p1", room=8)
    assert policy.tokenizer.decode(ids[:-1]) == "please paint"
    assert ids[-1] == end
    more = [*ask("please paint"), {"role": "assistant", "content": "no"}, *ask("sorry")]
    named = "User: please paint\n\nAssistant: no\n\nUser: sorry\n\nAssistant:"
    assert policy.render(more) == named
    # With a template it is the template that says where the marks go.
    policy.tokenizer.chat_template = "{{ messages[0]['content'] }} yes"
    assert policy.render(ask("please")) == "please yes"
    assert end not in policy.prompt_ids(ask("please"))


def test_prompt_and_response_have_a_context_each(tmp_path):
    policy = load(make_t5(tmp_path, kind="bart"))
    assert policy.context == 64
    long = ask(" ".join(["nice"] * 60))
    assert len(policy.encode_prompt(long, "p1", room=60)) == 61
    with pytest.raises(InputError, match="context of 64 each"):
        policy.encode_prompt(long, "p1", room=65)
    with pytest.raises(InputError, match="Prompt p2 has 71 tokens"):
        policy.encode_prompt(ask(" ".join(["nice"] * 70)), "p2", room=8)


def test_a_decoder_that_nobody_told_how_to_begin_is_refused(tmp_path):
    folder = make_t5(tmp_path)
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((folder / name).read_text())
        settings.pop("decoder_start_token_id", None)
        (folder / name).write_text(json.dumps(settings))
    with pytest.raises(InputError, match="without a decoder_start_token_id"):
        load(folder)


def test_dropout_is_off_wherever_t5_keeps_it(policy):
    policy.model.train()
    answers = [group[0].tokens for group in draw(policy)]
    policy.model.train()
    _, first = policy.read(PROMPTS, answers)
    _, second = policy.read(PROMPTS, answers)
    assert torch.equal(first, second)


# --- The stages -------------------------------------------------------------------------------


def demonstrations(n):
    generator = random.Random(0)
    return [
        prompt(i) | {"response": " ".join(generator.choices(WORDS, k=generator.randint(2, 6)))}
        for i in range(n)
    ]


@pytest.fixture(scope="session")
def taught(tmp_path_factory):
    """A T5 that has learnt to say a few words and to end; at random it never would."""
    folder = run_folder(
        tmp_path_factory.mktemp("taught"),
        {
            "policy": str(make_t5(tmp_path_factory.mktemp("t5"))),
            "epochs": 6,
            "learning_rate": 1e-2,
            "threads": 1,
        },
        demonstrations=demonstrations(240),
    )
    sft.main(folder, StopRequest())
    return folder


@pytest.fixture
def waiting(taught, taste, tmp_path):
    """A PPO run folder with the T5 as policy and the decoder-only reward model as judge."""

    def make(name="run", **settings):
        config = {
            "policy": str(taught / "policy"),
            "reference": str(taught / "policy"),
            "reward_model": str(taste / "train"),
            "steps": 2,
            "prompts_per_step": 12,
            "minibatch_size": 6,
            "microbatch_size": 4,
            "max_new_tokens": 12,
            "learning_rate": 1e-3,
            "threads": 1,
        }
        risks = ["harmful" if i % HARMFUL == 0 else "harmless" for i in range(24)]
        return run_folder(
            tmp_path / name,
            config | settings,
            prompts=[prompt(i, risk=risk) for i, risk in enumerate(risks)],
            watch=[prompt(300 + i) for i in range(6)],
        )

    return make


def test_fine_tuning_teaches_a_t5_to_answer_and_to_end(taught):
    result = result_of(taught)
    assert result["n_demonstrations"] + result["n_heldout"] == 240
    assert result["heldout_loss"] < 0.6 * result["heldout_loss_before"]
    policy = load(taught / "policy")
    ids = policy.encode_prompt(prompt(0)["messages"], "p0", room=12)
    settings = {"temperature": 1.0, "stop_ids": policy.stop_ids, "k": 40}
    answers = draw(policy, [ids], **settings)[0]
    assert sum(a.finished for a in answers) > 30
    said = {word for a in answers for word in policy.decode(a.tokens).split()}
    assert len(said & set(WORDS)) > 8
    assert not list(taught.rglob("*.bin"))


def test_the_loss_of_fine_tuning_a_t5_is_the_responses_mean_however_it_is_divided(tmp_path):
    """Before the first update it is what transformers says of each; and a batch in two parts
    teaches what the whole does, although the parts have different lengths."""
    folder = make_t5(tmp_path / "policy")
    policy = load(folder)
    rows = [prompt(i) | {"response": " ".join(WORDS[: 1 + i % 7])} for i in range(8)]
    logprobs = []
    for row in rows:
        ids = policy.encode_prompt(row["messages"], "p", room=12)
        tokens = [*conversations.encode(policy.tokenizer, row["response"]), policy.stop_ids[0]]
        logprobs.append(told_by_transformers(policy.model, ids, tokens, temperature=1.0))
    expected = -float(torch.cat(logprobs).mean())
    lines = []
    for size in (8, 2):
        config = {"policy": str(folder), "heldout_share": 0.0, "batch_size": 8, "threads": 1}
        config |= {"microbatch_size": size, "learning_rate": 1e-2, "epochs": 3}
        at = run_folder(tmp_path / f"size-{size}", config, demonstrations=rows)
        sft.main(at, StopRequest())
        lines.append([row["loss"] for row in rows_of(at / "metrics.jsonl")])
    assert lines[0][0] == pytest.approx(expected, rel=1e-4)
    assert lines[1] == pytest.approx(lines[0], rel=1e-3)


def test_ppo_raises_the_reward_of_a_t5_through_its_command_line(waiting):
    folder = waiting(
        steps=25, prompts_per_step=24, minibatch_size=12, learning_rate=3e-3, kl_weight=0.02
    )
    done = run("ppo", folder)
    assert done.returncode == 0, done.stderr
    lines = rows_of(folder / "metrics.jsonl")
    first = sum(line["reward"] for line in lines[:4]) / 4
    last = sum(line["reward"] for line in lines[-4:]) / 4
    assert last > first + 0.5
    assert lines[-1]["finished_fraction"] > 0.8
    samples = rows_of(folder / "samples.jsonl")
    assert sum(nice(row["after"]) for row in samples) > sum(nice(row["before"]) for row in samples)
    # What is handed on is a T5 that transformers loads, and it says so too.
    assert load(folder / "policy").encoder_decoder


@pytest.mark.parametrize(
    ("changed", "near"),
    [
        ({}, 1e-8),
        ({"lora_rank": 2}, 1e-8),
        ({"critic": "model"}, 1e-8),
        # T5 learns its attention's bias, and with a gradient attention takes another kernel, which
        # rounds bfloat16 differently.
        ({"dtype": "bfloat16"}, 1e-4),
    ],
    ids=["head", "LoRA", "critic of its own", "bfloat16"],
)
def test_at_the_first_update_the_ratio_is_1(waiting, changed, near):
    """Nothing has moved: what is read is what was sampled, and no token is clipped. The critic's
    own trunk is the T5 too, although the reward model has the same words."""
    one = {"steps": 1, "epochs": 1, "minibatch_size": 12}
    folder = waiting(**one, **changed)
    finish(folder)
    line = rows_of(folder / "metrics.jsonl")[0]
    assert line["approx_kl"] < near
    assert line["clip_fraction"] == 0
    assert line["kl"] < 1e-3
    assert line["updates"] == 1
    config = PPOConfig.from_dict(json.loads((folder / "config.json").read_text()))
    models = ppo_models.Models(config)
    if config.critic.kind == "model":
        assert architecture.is_encoder_decoder(models.critic.trunk)


def test_adapters_come_off_for_the_reference_of_a_t5(waiting):
    folder = waiting(lora_rank=4, learning_rate=1e-2)
    finish(folder)
    lines = rows_of(folder / "metrics.jsonl")
    assert lines[0]["kl"] < 1e-6 < lines[1]["kl"]
    assert not (folder / "policy" / "adapter_config.json").exists()


def test_two_processes_teach_a_t5_what_one_does(waiting):
    settings = {"steps": 2, "minibatch_size": 5, "score_clip": 0.0}
    one, two = waiting("one", **settings), waiting("two", **settings)
    finish(one)
    run_together(two)
    assert result_of(two)["processes"] == 2
    for a, b in zip(rows_of(one / "metrics.jsonl"), rows_of(two / "metrics.jsonl"), strict=True):
        for name in ("reward", "kl", "policy_loss", "value_loss", "grad_norm"):
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("changed", [{}, {"critic": "model", "lora_rank": 2}], ids=["head", "own"])
def test_a_killed_t5_run_ends_with_the_same_bytes(waiting, changed):
    settings = {"steps": 16, "checkpoint_every": 3, **changed}
    whole, killed = waiting("whole", **settings), waiting("killed", **settings)
    finish(whole)
    process = start("ppo", killed)
    metrics = killed / "metrics.jsonl"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) >= 5):
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (killed / "result.json").exists()
    finished = run("ppo", killed)
    assert finished.returncode == 0, finished.stderr
    assert weights(killed) == weights(whole)
    assert without_clocks(killed) == without_clocks(whole)
    assert (killed / "samples.jsonl").read_text() == (whole / "samples.jsonl").read_text()


def test_the_other_stages_take_a_t5(taught, taste, tmp_path):
    policy, judge = str(taught / "policy"), str(taste / "train")
    prompts = [prompt(i) for i in range(4)]
    stages = {
        "generate": {"policy": policy, "k": 3, "max_new_tokens": 12},
        "evaluate": {"policy": policy, "reward_model": judge, "max_new_tokens": 12},
        "best_of_n": {"policy": policy, "reward_model": judge, "n": [1, 4], "max_new_tokens": 12},
    }
    for stage, config in stages.items():
        folder = run_folder(tmp_path / stage, config | {"threads": 1}, prompts=prompts)
        done = run(stage, folder)
        assert done.returncode == 0, (stage, done.stderr)
    responses = rows_of(tmp_path / "generate" / "responses.jsonl")
    assert all(len(row["responses"]) == 3 for row in responses)
    curve = result_of(tmp_path / "best_of_n")["curve"]
    assert curve[1]["score"]["value"] > curve[0]["score"]["value"]


def test_the_doctor_looks_at_a_t5_and_says_how_prompts_are_read(waiting):
    from rlhf.training.doctor.examination import examine

    report = examine(waiting())
    said = {finding.about: finding for finding in report.findings}
    assert report.exit_code < 2, report.findings
    assert "its encoder gets a single turn as plain text" in said["template"].message
    assert said["tokenizer"].level == "ok"
    assert said["answers"].level == "ok"
    assert "time" in said


def test_what_takes_no_t5_says_so_in_one_sentence(taught, waiting, tmp_path):
    rows = [judgment(i, ["nice", "red"], {"helpfulness": [1, 2]}) for i in range(4)]
    folder = run_folder(tmp_path / "dpo", {"policy": str(taught / "policy")}, preferences=rows)
    done = run("dpo", folder)
    assert done.returncode == 2
    assert "takes decoder-only models" in json.loads((folder / "error.json").read_text())["message"]
    from rlhf.training import export_job

    for engine in export_job.ENGINES:
        with pytest.raises(InputError, match=f"and {engine} takes decoder-only models"):
            export_job.export(waiting(engine), engine)


# --- A T5's encoder as reward model -------------------------------------------------------------


def test_a_t5s_encoder_learns_to_score(tmp_path):
    trunk = str(make_t5(tmp_path / "t5"))
    settings = {"prior": False, "learning_rate": 3e-3, "epochs": 8}
    folder = make_rewards(tmp_path / "rewards", trunk, nice, **settings)
    assert result_of(folder)["test"]["helpfulness"]["accuracy"] > 0.7
    model = load_reward_model(folder / "train")
    scores = model.score([ask("paint")] * 2, ["nice nice nice", "red red red"])["helpfulness"]
    assert scores[0] > scores[1] + 0.5
    # The prompt beside it changes nothing, padding included.
    alone = [model.score([ask("paint")], [t])["helpfulness"] for t in ("nice " * 3, "red lamp")]
    both = model.score([ask("paint")] * 2, ["nice " * 3, "red lamp"])["helpfulness"]
    assert torch.allclose(torch.cat(alone), both, atol=1e-4)


def test_its_prior_is_what_the_whole_t5_says_of_the_response(taught):
    """Mean, least and surprises of the response's log-probabilities, by passes of transformers."""
    settings = {"use_prior": True, "max_length": 64, "device": "cpu"}
    model = RewardModel.new(str(taught / "policy"), ["helpfulness"], **settings)
    policy = load(taught / "policy")
    asked = [prompt(0)["messages"], [*ask("paint"), *ask("sorry")]]
    texts = ["nice red lamp", "burn my kettle please"]
    features = model.prior_features(model.tokenize(asked, texts))
    for messages, text, found in zip(asked, texts, features, strict=True):
        ids = policy.encode_prompt(messages, "p", room=12)
        logprobs = told_by_transformers(
            policy.model, ids, policy.encode_response(text), temperature=1.0
        )
        expected = [logprobs.mean(), logprobs.min(), (logprobs < -4.0).sum()]
        assert torch.allclose(found, torch.stack([x.float() for x in expected]), atol=1e-4)


def test_a_t5_is_judged_by_a_reward_model_of_its_own_kind(taught, waiting, tmp_path):
    """As in a round: the reward model begins as the policy, prior and all."""
    own = make_rewards(tmp_path / "own", str(taught / "policy"), nice, learning_rate=3e-3, epochs=6)
    model = load_reward_model(own / "train")
    assert architecture.is_encoder_decoder(model.prior)
    scores = model.score([ask("paint")] * 2, ["nice nice nice", "red red red"])["helpfulness"]
    assert scores[0] > scores[1] + 0.5
    folder = waiting(reward_model=str(own / "train"), critic="model", steps=1)
    finish(folder)
    assert rows_of(folder / "metrics.jsonl")[0]["updates"] > 0


def test_no_other_encoder_decoder_becomes_a_reward_model(tmp_path):
    trunk = str(make_t5(tmp_path / "trunk", kind="bart"))
    with pytest.raises(InputError, match="only T5's encoder can carry a head"):
        make_rewards(tmp_path / "rewards", trunk, nice)


def test_both_halves_of_a_t5_learn_from_the_reward(waiting):
    """The gradient reaches the encoder, which only ever sees the prompt."""
    folder = waiting(steps=2)
    finish(folder)
    before = load(json.loads((folder / "config.json").read_text())["policy"]).model
    after = load(folder / "policy").model
    for half in ("encoder", "decoder"):
        pairs = itertools.zip_longest(
            getattr(before, half).parameters(), getattr(after, half).parameters()
        )
        assert all(not torch.equal(a, b) for a, b in pairs)
