"""PPO-ptx: what the policy was taught stays likely while it climbs a reward that would undo it."""

import json

import pytest
import torch

from rlhf.training import ptx
from rlhf.training.language_models.policy import load_policy
from rlhf.training.rundir.errors import InputError
from rlhf.training.settings import FROZEN
from tests.rlhf.training.conftest import finish, weights
from tests.rlhf.training.test_encoder_decoder import told_by_transformers
from tests.rlhf.training.tiny import ask, make_t5, prompt, rows_of, run

KEPT = [prompt(i) | {"response": "sorry no blue kettle"} for i in range(8)]


def write(folder, rows):
    (folder / "data" / "ptx.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mean_logprob(policy, rows):
    """Nats per token of the responses, their ends included, by plain passes of transformers."""
    parts = []
    for row in rows:
        ids = policy.encode_prompt(row["messages"], "p", room=20)
        tokens = policy.encode_response(row["response"])
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([ids + tokens])).logits[0]
        logprobs = torch.log_softmax(logits[len(ids) - 1 : -1], dim=-1)
        parts.append(logprobs.gather(1, torch.tensor(tokens)[:, None])[:, 0])
    return float(torch.cat(parts).mean())


def load(folder):
    return load_policy(str(folder), "policy", device=torch.device("cpu"))


def test_the_loss_is_what_transformers_says_of_the_examples(ready, talker):
    """At temperature 1, whatever is sampled at; before the first update, over all eight."""
    folder = ready(ptx_weight=0.5, temperature=0.7, steps=1, epochs=1, minibatch_size=12)
    finish(folder)
    line = rows_of(folder / "metrics.jsonl")[0]
    assert line["ptx_loss"] == pytest.approx(-mean_logprob(load(talker), KEPT), rel=1e-4)


def test_a_batch_in_parts_has_the_gradient_of_the_whole(ready):
    norms = []
    for size in (1, 3, 12):
        settings = {"steps": 1, "epochs": 1, "microbatch_size": size}
        folder = ready(f"size-{size}", ptx_weight=2.0, **settings)
        finish(folder)
        norms.append([rows_of(folder / "metrics.jsonl")[0][k] for k in ("grad_norm", "ptx_loss")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert norms[1] == pytest.approx(norms[2], rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_kept_stays_likelier_and_the_reward_still_rises(ready, talker, seed):
    """The reward likes "nice"; what is kept never says it, and no KL penalty holds the policy."""
    settings = {"steps": 12, "prompts_per_step": 24, "minibatch_size": 12, "learning_rate": 3e-3}
    settings |= {"kl_weight": 0.0, "seed": seed}
    start = mean_logprob(load(talker), KEPT)
    likely, rise = {}, {}
    for weight in (0.0, 0.3):
        folder = ready(f"weight-{weight}", ptx_weight=weight, **settings)
        finish(folder)
        lines = rows_of(folder / "metrics.jsonl")
        likely[weight] = mean_logprob(load(folder / "policy"), KEPT)
        rise[weight] = sum(r["reward"] for r in lines[-3:]) - sum(r["reward"] for r in lines[:3])
        assert ("ptx_loss" in lines[0]) == bool(weight)
    assert likely[0.0] < start
    assert likely[0.3] > likely[0.0] + 0.5
    assert rise[0.3] > 0.5


def test_the_policy_is_left_alone_while_the_critic_warms_up(ready, monkeypatch):
    monkeypatch.setenv(FROZEN, "1")  # a run in which the policy never learns is refused by now
    folder = ready(ptx_weight=5.0, critic_warmup_steps=1, steps=1)
    finish(folder)
    assert "ptx_loss" not in rows_of(folder / "metrics.jsonl")[0]
    plain = ready("plain", critic_warmup_steps=1, steps=1)
    finish(plain)
    assert weights(plain) == weights(folder)


def test_a_text_by_itself_counts_from_its_second_token(ready, talker):
    folder = write(ready(), [{"text": "nice red lamp"}, {"text": "nice " * 400}])
    policy = load(talker)
    short, long = ptx.read_examples(folder, policy, "refuse")
    whole = policy.tokenizer.encode("nice red lamp")
    assert (short.prompt, short.response) == (whole[:1], whole[1:])
    assert len(long.prompt) + len(long.response) == policy.context
    policy.tokenizer.bos_token = "<|user|>"
    begun, _ = ptx.read_examples(folder, policy, "refuse")
    assert (begun.prompt, begun.response) == ([policy.tokenizer.bos_token_id], whole)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "ptx.weight needs data/ptx.jsonl, which is missing"),
        ([], "data/ptx.jsonl is empty"),
        ([{"text": " "}], "line 1 needs messages and a response, or a text"),
        ([KEPT[0], {"messages": ask("paint"), "text": "nice"}], "line 2 needs messages and a resp"),
        ([{"text": "nice"}], "line 1 is a single token"),
        ([{"messages": ask("nice " * 300), "response": "no"}], "than the model's context of 128"),
    ],
    ids=["missing", "empty", "blank", "no response", "one token", "too long"],
)
def test_what_cannot_be_kept_is_refused_in_one_sentence(ready, talker, rows, reason):
    folder = ready(ptx_weight=0.5)
    if rows is None:
        (folder / "data" / "ptx.jsonl").unlink()
    else:
        write(folder, rows)
    with pytest.raises(InputError, match=reason):
        finish(folder)
    assert not (folder / "metrics.jsonl").exists()


def test_the_command_ends_with_exit_code_2_where_the_file_is_missing(ready):
    folder = ready(ptx_weight=0.5)
    (folder / "data" / "ptx.jsonl").unlink()
    done = run("ppo", folder)
    assert done.returncode == 2
    assert "set ptx.weight to 0" in json.loads((folder / "error.json").read_text())["message"]


def test_a_line_that_is_too_long_can_be_left_out(ready, talker):
    long = {"messages": ask("nice " * 300), "response": "no"}
    folder = write(ready(), [long, KEPT[0]])
    assert len(ptx.read_examples(folder, load(talker), "leave_out")) == 1
    write(folder, [long])
    with pytest.raises(InputError, match=r"No line of data/ptx\.jsonl fits"):
        ptx.read_examples(folder, load(talker), "leave_out")


def test_an_encoder_decoder_keeps_demonstrations_but_no_bare_texts(ready, tmp_path):
    t5 = str(make_t5(tmp_path / "t5"))
    folder = ready(policy=t5, reference=t5, ptx_weight=0.5, steps=1, epochs=1, minibatch_size=12)
    finish(folder)
    policy = load(t5)
    logprobs = [
        told_by_transformers(
            policy.model,
            policy.encode_prompt(row["messages"], "p", room=12),
            policy.encode_response(row["response"]),
            temperature=1.0,
        )
        for row in KEPT
    ]
    line = rows_of(folder / "metrics.jsonl")[0]
    assert line["ptx_loss"] == pytest.approx(-float(torch.cat(logprobs).mean()), rel=1e-4)
    write(folder, [{"text": "nice red lamp"}])
    with pytest.raises(InputError, match="needs something for its encoder"):
        ptx.read_examples(folder, policy, "refuse")
