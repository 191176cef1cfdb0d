"""Fine-tuning on demonstrations, DPO and best-of-n: real trainers on the tiny policy."""

import itertools
import math
import random

import pytest

from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.conftest import nice
from tests.rlhf.training.test_stages import rankings
from tests.rlhf.training.tiny import ask, judgment, prompt, result_of, rows_of, run_folder

TAUGHT = "yes please nice lamp"


def demonstrations(n):
    return [prompt(i) | {"response": TAUGHT} for i in range(n)]


def logprob(folder, prompt_text, text):
    """How likely a policy finds a response, end included; nats."""
    import torch

    from rlhf.training import ppo_math
    from rlhf.training.language_models.policy import load_policy

    policy = load_policy(str(folder), "policy", device=torch.device("cpu"))
    ids = policy.encode_prompt(ask(prompt_text), "p", room=20)
    response = policy.encode_response(text)
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([ids + response])).logits
    logits = logits[:, len(ids) - 1 : -1]
    return float(ppo_math.selected_logprobs(logits, torch.tensor([response])).sum())


def test_fine_tuning_teaches_the_answer_and_its_end_but_not_the_question(talker, tmp_path):
    from rlhf.training import sft

    folder = run_folder(
        tmp_path,
        {
            "policy": talker,
            "epochs": 4,
            "batch_size": 8,
            "microbatch_size": 4,
            "learning_rate": 5e-3,
            "threads": 1,
        },
        demonstrations=demonstrations(40),
    )
    question = "please paint my red lamp"
    before = logprob(talker, question, TAUGHT)
    sft.main(folder, StopRequest())
    result = result_of(folder)
    assert result["n_demonstrations"] + result["n_heldout"] == 40
    assert result["n_heldout"] == 4
    assert result["heldout_loss"] < 0.3 * result["heldout_loss_before"]
    assert logprob(folder / "policy", question, TAUGHT) > before + 10
    # The question has come in every example, and is no likelier as an answer.
    assert logprob(folder / "policy", question, question) < before
    lines = rows_of(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, result["steps"] + 1))
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pt"))


def test_the_loss_of_fine_tuning_is_that_of_the_response_alone(talker, tmp_path):
    """Before the first update the held-out loss is the response's, counted by hand."""
    from rlhf.training import sft

    rows = [prompt(0) | {"prompt_id": f"p{i}", "response": TAUGHT} for i in range(4)]
    config = {"policy": talker, "heldout_share": 0.5, "learning_rate": 0.0, "threads": 1}
    folder = run_folder(tmp_path, config, demonstrations=rows)
    sft.main(folder, StopRequest())
    question = rows[0]["messages"][0]["content"]
    words = len(TAUGHT.split()) + 1  # and the end
    expected = -logprob(talker, question, TAUGHT) / words
    assert result_of(folder)["heldout_loss_before"] == pytest.approx(expected, rel=1e-4)


def test_dpo_makes_the_preferred_likelier_and_evaluate_takes_its_policy(talker, tmp_path):
    from rlhf.training import dpo, evaluate

    folder = run_folder(
        tmp_path / "dpo",
        {
            "policy": talker,
            "epochs": 2,
            "learning_rate": 2e-3,
            "batch_size": 32,
            "microbatch_size": 32,
            "threads": 1,
        },
        preferences=rankings(150, nice),
    )
    dpo.main(folder, StopRequest())
    result = result_of(folder)
    assert result["heldout_accuracy"] > 0.7
    assert result["loss"] < math.log(2)

    def lead(policy):
        question = "please paint my red lamp"
        good, bad = "nice nice nice nice nice", "sorry no sorry no sorry"
        return logprob(policy, question, good) - logprob(policy, question, bad)

    assert lead(folder / "policy") > lead(talker) + 1
    config = {"policy": str(folder / "policy"), "max_new_tokens": 5, "threads": 1}
    looked = run_folder(tmp_path / "look", config, prompts=[prompt(i) for i in range(3)])
    evaluate.main(looked, StopRequest())
    assert len(rows_of(looked / "samples.jsonl")) == 3 * 2 * 3


def test_conservative_dpo_takes_its_share_of_the_pairs_the_other_way_round(talker, tmp_path):
    from rlhf.training import dpo, tuning

    share, beta = 0.3, 0.5
    folder = run_folder(
        tmp_path,
        {"policy": talker, "learning_rate": 2e-3, "batch_size": 8, "microbatch_size": 8}
        | {"beta": beta, "label_smoothing": share, "heldout_share": 0.5, "threads": 1},
        preferences=[
            judgment(i, ["nice nice", "sorry no"], {"helpfulness": [1, 2]}) for i in range(16)
        ],
    )
    dpo.main(folder, StopRequest())
    losses = []
    for name in tuning.held_out([f"p{i}" for i in range(16)], 0.5, 0):
        question = prompt(int(name[1:]))["messages"][0]["content"]
        now, before = (
            logprob(policy, question, "nice nice") - logprob(policy, question, "sorry no")
            for policy in (folder / "policy", talker)
        )
        margin = beta * (now - before)
        labelled, turned = (math.log1p(math.exp(-side * margin)) for side in (1, -1))
        losses.append((1 - share) * labelled + share * turned)
    assert abs(margin) > 0.5
    assert result_of(folder)["heldout_loss"] == pytest.approx(sum(losses) / 8, abs=1e-4)


def test_dpo_learns_nothing_from_ties(talker, tmp_path):
    from rlhf.training import dpo
    from rlhf.training.rundir.errors import InputError

    tied = [row | {"ranks": {"helpfulness": [1, 1, 1, 1]}} for row in rankings(4, nice)]
    folder = run_folder(tmp_path, {"policy": talker}, preferences=tied)
    with pytest.raises(InputError, match="prefers one response to another on helpfulness"):
        dpo.main(folder, StopRequest())


def test_a_stopped_trainer_leaves_no_policy(talker, tmp_path):
    from rlhf.training import sft
    from rlhf.training.rundir.errors import Stopped

    folder = run_folder(
        tmp_path, {"policy": talker, "batch_size": 4, "microbatch_size": 4, "threads": 1},
        demonstrations=demonstrations(20),
    )  # fmt: skip
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Stopped):
        sft.main(folder, stop)
    assert not (folder / "policy").exists()
    assert not (folder / "result.json").exists()


def test_the_best_of_more_answers_scores_higher_at_the_kl_that_is_known(talker, taste, tmp_path):
    from rlhf.training import best_of_n, evaluate

    prompts = [prompt(i) for i in range(12)]
    folder = run_folder(
        tmp_path / "best",
        {
            "policy": talker,
            "reward_model": str(taste / "train"),
            "test_reward_model": str(taste / "test"),
            "n": [1, 2, 8],
            "max_new_tokens": 40,
            "threads": 1,
        },
        prompts=prompts,
    )
    best_of_n.main(folder, StopRequest())
    curve = result_of(folder)["curve"]
    assert [point["n"] for point in curve] == [1, 2, 8]
    assert [point["kl"] for point in curve] == pytest.approx(
        [0, math.log(2) - 0.5, math.log(8) - 7 / 8]
    )
    values = [point["score"]["value"] for point in curve]
    assert values == sorted(values)
    assert values[2] > values[0] + 0.3
    assert all(set(point) == {"n", "kl", "score", "test_score"} for point in curve)
    # What it picked are samples that evaluate compares a policy with.
    rows = rows_of(folder / "samples-8.jsonl")
    assert [row["prompt_id"] for row in rows] == [p["prompt_id"] for p in prompts]
    config = {
        "policy": talker,
        "reward_model": str(taste / "train"),
        "temperatures": [1.0],
        "max_new_tokens": 40,
        "threads": 1,
    }
    against = run_folder(tmp_path / "against", config, prompts=prompts, opponents__base=rows)
    evaluate.main(against, StopRequest())
    assert result_of(against)["summary"]["1.0"]["win_rate_vs_base"]["n"] == 12


def test_the_best_of_n_wins_by_as_much_as_the_greatest_of_n_draws_must(talker, taste, tmp_path):
    """Drawn and scored once more beside the stage, and counted over all choices of n answers."""
    import torch

    from rlhf.training import best_of_n, sampling
    from rlhf.training.language_models.policy import load_policy
    from rlhf.training.reward_models.folder import load_reward_model

    k, sizes, prompts = 6, [1, 2, 3], [prompt(i) | {"prompt_id": f"q{i}"} for i in range(60)]
    config = {"policy": talker, "reward_model": str(taste / "train"), "n": sizes, "samples": k}
    config |= {"max_new_tokens": 40, "seed": 7, "threads": 1, "no_eos_score": -1.0}
    folder = run_folder(tmp_path, config, prompts=prompts)
    best_of_n.main(folder, StopRequest())
    curve = result_of(folder)["curve"]

    policy = load_policy(talker, "policy", device=torch.device("cpu"))
    encoded = [policy.encode_prompt(p["messages"], "p", room=40) for p in prompts]
    answers = sampling.sample(
        policy.model, encoded, k=k, max_new_tokens=40, temperature=1.0, stop_ids=policy.stop_ids,
        pad_id=policy.pad_id, generator=torch.Generator().manual_seed(7),
    )  # fmt: skip
    model = load_reward_model(taste / "train")
    scores = []
    for p, group in zip(prompts, answers, strict=True):
        by_axis = model.score([p["messages"]] * k, [policy.decode(a.tokens) for a in group])
        total = model.combine(by_axis, ["harmless"] * k, threshold=0.15).tolist()
        scores.append([t if a.finished else -1.0 for t, a in zip(total, group, strict=True)])
    for point in curve:
        n = point["n"]
        by_hand = [
            sum(max(choice) for choice in itertools.combinations(mine, n)) / math.comb(k, n)
            for mine in scores
        ]
        assert point["score"]["value"] == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-4)
        assert point["kl"] == pytest.approx(math.log(n) - (n - 1) / n)
    one, two, three = (point["score"]["value"] for point in curve)
    assert one < two < three
    assert three - two < two - one  # each further answer adds less

    # What it picked of three beats another answer as often as the greatest of three draws does.
    rows = rows_of(folder / "samples-3.jsonl")
    for row, mine, group in zip(rows, scores, answers, strict=True):
        best = max(range(3), key=mine.__getitem__)
        assert row["text"] == policy.decode(group[best].tokens)
    won = [(max(m[:3]) > m[3]) + 0.5 * (max(m[:3]) == m[3]) for m in scores]
    assert sum(won) / len(won) == pytest.approx(3 / 4, abs=3 * math.sqrt(3 / 16 / len(won)))


def test_the_score_of_the_best_of_n_is_the_mean_over_all_choices_of_n():
    from rlhf.training.best_of_n import expected_best

    generator = random.Random(0)
    by = [generator.random() for _ in range(6)]
    of = [generator.random() for _ in range(6)]
    for n in (1, 2, 3, 6):
        choices = list(itertools.combinations(range(6), n))
        by_hand = sum(of[max(c, key=by.__getitem__)] for c in choices) / len(choices)
        assert expected_best(by, of, n) == pytest.approx(by_hand)
