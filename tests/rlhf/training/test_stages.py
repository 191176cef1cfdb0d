"""Every stage as a real process on a tiny random model, and what each says about bad input."""

import json
import random
from pathlib import Path

import pytest

from rlhf.training import evaluate, generate, ppo, reward_model
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.rundir.process import StopRequest, run_stage
from tests.rlhf.training.tiny import (
    WORDS,
    ask,
    judgment,
    make_policy,
    prompt,
    result_of,
    rows_of,
    run,
    run_command,
    run_folder,
)

SHORT = {"max_new_tokens": 10, "threads": 1}


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    return str(make_policy(tmp_path_factory.mktemp("policy")))


def run_here(stage, folder):
    """A stage in this process, for what the process around it adds nothing to."""
    MAINS[stage](folder, StopRequest())


def sentences(generator, n):
    return [" ".join(generator.choice(WORDS) for _ in range(5)) for _ in range(n)]


def rankings(n, score, *, axis="helpfulness", seed=0):
    """Judgments of four random sentences each, ranked by a rule that stands for a person."""
    generator = random.Random(seed)
    made = []
    for number in range(n):
        texts = sentences(generator, 4)
        ranks = [1 + sum(score(other) > score(text) for other in texts) for text in texts]
        risk = "harmful" if number % 3 == 0 else "harmless"
        made.append(judgment(number, texts, {axis: ranks}, risk=risk))
    return made


def references(n, seed=1):
    texts = sentences(random.Random(seed), n)
    return [prompt(i) | {"text": text} for i, text in enumerate(texts)]


def nice(text):
    return text.split().count("nice")


@pytest.fixture(scope="module")
def rewards(policy, tmp_path_factory):
    """Reward models trained by the real stage to like the word "nice"."""
    config = {
        "trunk": policy,
        "axes": ["helpfulness"],
        "epochs": 6,
        "test_share": 0.4,
        "threads": 1,
    }
    folder = run_folder(
        tmp_path_factory.mktemp("rewards"),
        config,
        preferences=rankings(120, nice),
        reference=references(40),
    )
    finished = run_command("reward_model", folder)
    assert finished.returncode == 0, finished.stderr
    return folder


def test_generate_gives_every_prompt_k_distinct_responses_that_add_up(policy, tmp_path):
    folder = run_folder(
        tmp_path, {"policy": policy, "k": 3} | SHORT, prompts=[prompt(i) for i in range(7)]
    )
    finished = run_command("generate", folder)
    assert finished.returncode == 0, finished.stderr
    rows = rows_of(folder / "responses.jsonl")
    assert [row["prompt_id"] for row in rows] == [f"p{i}" for i in range(7)]
    for row in rows:
        assert len({r["text"] for r in row["responses"]}) == 3
        for response in row["responses"]:
            assert response["logprob"] < 0
            assert 1 <= response["n_tokens"] <= 10
            assert response["finished"] or response["n_tokens"] == 10
    result = result_of(folder)
    assert (result["n_prompts"], result["n_responses"]) == (7, 21)
    assert json.loads((folder / "progress.json").read_text())["done"] == 7


def test_a_reward_model_learns_a_rule_from_rankings_and_reports_it(rewards):
    result = result_of(rewards)
    for half in ("train", "test"):
        figures = result[half]["helpfulness"]
        assert figures["accuracy"] > 0.85
        low, high = figures["accuracy_ci"]
        assert low < figures["accuracy"] < high
        assert figures["human_agreement"] is None  # nobody judged the same comparison twice
    assert result["n_judgments"] == result["n_prompts"] == 120
    assert (
        sum(b["n"] for b in result["calibration"]["helpfulness"])
        == (result["train"]["helpfulness"]["n"])
    )


def test_reward_models_of_both_halves_load_and_prefer_what_people_preferred(rewards):
    for half in ("train", "test"):
        model = load_reward_model(rewards / half)
        scores = model.score(
            [ask("please paint my red lamp")] * 2, ["nice nice nice nice", "blue red lamp sell"]
        )
        assert scores["helpfulness"][0] > scores["helpfulness"][1]


def test_scores_of_the_reference_have_mean_0_and_deviation_1(rewards):
    rows = references(40)
    scores = load_reward_model(rewards / "train").score(
        [row["messages"] for row in rows], [row["text"] for row in rows]
    )["helpfulness"]
    assert float(scores.mean()) == pytest.approx(0, abs=1e-4)
    assert float(scores.std()) == pytest.approx(1, abs=1e-4)


def test_the_two_reward_models_share_no_prompt_and_nothing_is_pickled(rewards):
    assert list(rewards.rglob("*.bin")) == []
    assert list(rewards.rglob("*.pt")) == []
    for half in ("train", "test"):
        assert (rewards / half / "heads.safetensors").exists()


def test_two_people_on_the_same_comparisons_give_the_human_agreement(policy, tmp_path):
    once = rankings(30, nice)
    # ben says the opposite on one comparison in three.
    again = [
        row
        | {
            "annotator": "ben",
            "ranks": {
                "helpfulness": [5 - r for r in row["ranks"]["helpfulness"]]
                if i % 3 == 0
                else row["ranks"]["helpfulness"]
            },
        }
        for i, row in enumerate(once)
    ]
    config = {"trunk": policy, "axes": ["helpfulness"], "epochs": 1, "prior": False, "threads": 1}
    folder = run_folder(tmp_path, config, preferences=once + again, reference=references(10))
    run_here("reward_model", folder)
    agreement = result_of(folder)["train"]["helpfulness"]["human_agreement"]
    assert 0.4 < agreement < 0.9


def test_ppo_raises_what_the_reward_model_likes_and_writes_its_books(policy, rewards, tmp_path):
    config = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(rewards / "train"),
        "test_reward_model": str(rewards / "test"),
        "steps": 12,
        "prompts_per_step": 48,
        "minibatch_size": 24,
        "epochs": 4,
        "learning_rate": 5e-3,
        "kl_weight": 0.01,
        "approx_kl_stop": 0.0,
        "no_eos_score": 0.0,
    }
    # Nothing this policy says ever ends, so the end is not what is rewarded here.
    config |= {"rules": {"too_short": 1.0}} | SHORT
    folder = run_folder(
        tmp_path,
        config,
        prompts=[prompt(i) for i in range(96)],
        watch=[prompt(200 + i) for i in range(4)],
    )
    finished = run_command("ppo", folder)
    assert finished.returncode == 0, finished.stderr
    lines = rows_of(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 13))
    needed = (
        "reward helpfulness test_reward kl kl_weight entropy length policy_loss value_loss "
        "clip_fraction approx_kl grad_norm finished_fraction samples_per_second seconds_generate "
        "seconds_score seconds_train rule_too_short"
    )
    for line in lines:
        assert not set(needed.split()) - set(line)
        assert line["kl"] >= 0
    assert lines[0]["kl"] < 1e-6
    assert lines[-1]["kl"] > lines[1]["kl"]
    samples = rows_of(folder / "samples.jsonl")
    assert [s["prompt_id"] for s in samples] == [f"p{200 + i}" for i in range(4)]
    assert samples[0]["step"] == 12
    assert set(samples[0]["scores_after"]) == {"helpfulness"}
    # Nothing that this policy says ends before it learns.
    assert not any(s["finished_before"] for s in samples)
    result = result_of(folder)
    assert result["unfinished"]["n"] == 48
    assert result["unfinished"]["value"] == pytest.approx(1 - lines[-1]["finished_fraction"])
    assert result["unfinished"]["value"] > 0.5
    assert (result["steps"], result["stop_reason"], result["skipped_updates"]) == (12, "steps", 0)
    assert (folder / "policy" / "model.safetensors").exists()


def test_evaluate_scores_this_policy_and_its_opponents_with_the_same_scale(
    policy, rewards, tmp_path
):
    prompts = [prompt(i) for i in range(5)]
    config = {"policy": policy, "samples_per_prompt": 2} | SHORT
    base = run_folder(tmp_path / "base", config, prompts=prompts)
    run_here("evaluate", base)
    assert result_of(base)["summary"] is None
    counted = result_of(base)["responses"]["1.0"]
    assert (counted["unfinished_rate"]["n"], counted["mean_length"]["n"]) == (5, 5)
    samples = rows_of(base / "samples.jsonl")
    assert len(samples) == 5 * 2 * 2
    assert all(row["scores"] is None for row in samples)

    now = run_folder(
        tmp_path / "now",
        config | {"reward_model": str(rewards / "train")},
        prompts=prompts,
        opponents__base=samples,
    )
    finished = run_command("evaluate", now)
    assert finished.returncode == 0, finished.stderr
    result = result_of(now)
    assert set(result["summary"]) == set(result["opponents"]["base"]) == {"1.0", "0.3"}
    # The same policy and seed give the same texts, so it neither wins nor loses.
    assert result["summary"]["1.0"]["win_rate_vs_base"]["value"] == 0.5
    assert (
        result["summary"]["1.0"]["helpfulness"] == result["opponents"]["base"]["1.0"]["helpfulness"]
    )
    assert result["summary"]["1.0"]["unfinished_rate"] == counted["unfinished_rate"]
    scored = rows_of(now / "opponents" / "base.jsonl")
    assert [row["text"] for row in scored] == [row["text"] for row in samples]
    assert all(set(row["scores"]) == {"helpfulness"} for row in scored)


MAINS = {
    "generate": generate.main,
    "reward_model": reward_model.main,
    "ppo": ppo.main,
    "evaluate": evaluate.main,
}


def refused(stage, folder):
    """End a stage on its input, as `python -m` would; the one sentence that it says."""
    with pytest.raises(SystemExit) as ended:
        run_stage(MAINS[stage], [str(folder)])
    assert ended.value.code == 2
    error = json.loads((folder / "error.json").read_text())
    assert error["kind"] == "input"
    assert "\n" not in error["message"]
    assert not (folder / "result.json").exists()
    return error["message"]


def test_a_model_folder_that_is_not_there_is_named(tmp_path):
    folder = run_folder(tmp_path, {"policy": "/no/such/model"}, prompts=[prompt(0)])
    assert "'/no/such/model' does not exist" in refused("generate", folder)


def test_a_hub_name_that_cannot_be_had_is_named_and_a_path_suggested(tmp_path):
    folder = run_folder(tmp_path, {"policy": "nobody/nothing-7b"}, prompts=[prompt(0)])
    finished = run("generate", folder)  # a process of its own, whose hub is offline
    assert finished.returncode == 2
    message = json.loads((folder / "error.json").read_text())["message"]
    assert "'nobody/nothing-7b'" in message
    assert "local" in message


def test_a_pickle_in_place_of_safetensors_is_refused(policy, tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((Path(policy) / name).read_bytes())
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04N.")
    folder = run_folder(tmp_path / "run", {"policy": str(model)}, prompts=[prompt(0)])
    assert "pickle" in refused("generate", folder)


def test_a_truncated_model_file_is_one_sentence(policy, tmp_path):
    model = make_policy(tmp_path / "model")
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    folder = run_folder(tmp_path / "run", {"policy": str(model)}, prompts=[prompt(0)])
    assert "can't be read" in refused("generate", folder)


def test_nan_in_a_checkpoint_is_found_before_anything_is_sampled(tmp_path):
    from safetensors.torch import load_file, save_file

    model = make_policy(tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    folder = run_folder(tmp_path / "run", {"policy": str(model)}, prompts=[prompt(0)])
    assert "NaN" in refused("generate", folder)


def test_a_prompt_longer_than_the_context_is_named(policy, tmp_path):
    long = prompt(3) | {"messages": ask("nice " * 200)}
    folder = run_folder(tmp_path, {"policy": policy} | SHORT, prompts=[prompt(0), long])
    message = refused("generate", folder)
    assert "p3" in message
    assert "context of 128" in message


def test_no_prompts_no_judgments_and_a_single_prompt_are_refused(policy, tmp_path):
    folder = run_folder(tmp_path / "a", {"policy": policy}, prompts=[])
    assert "no prompts" in refused("generate", folder)
    folder = run_folder(tmp_path / "b", {"trunk": policy}, preferences=[], reference=references(3))
    assert "no judgments" in refused("reward_model", folder)
    folder = run_folder(
        tmp_path / "c",
        {"trunk": policy, "axes": ["helpfulness"]},
        preferences=rankings(1, nice),
        reference=references(3),
    )
    assert "only one prompt" in refused("reward_model", folder)


def test_rankings_that_prefer_nothing_teach_nothing(policy, tmp_path):
    flat = [
        row | {"ranks": {"helpfulness": [1, 1, 1, 1], "safety": [None] * 4}}
        for row in rankings(6, nice)
    ]
    flat = [row | {"responses": ["same"] * 4} for row in flat]
    folder = run_folder(tmp_path, {"trunk": policy}, preferences=flat, reference=references(3))
    assert "prefers" in refused("reward_model", folder)


def test_a_rank_too_few_is_found_with_its_line(policy, tmp_path):
    rows = rankings(4, nice)
    rows[2]["ranks"]["helpfulness"].pop()
    folder = run_folder(tmp_path, {"trunk": policy}, preferences=rows, reference=references(3))
    assert "line 3" in refused("reward_model", folder)


def test_fewer_prompts_than_a_step_needs_is_an_error_not_an_endless_loop(policy, rewards, tmp_path):
    config = {
        "policy": policy,
        "reference": policy,
        "reward_model": str(rewards / "train"),
        "prompts_per_step": 64,
    }
    folder = run_folder(tmp_path, config, prompts=[prompt(i) for i in range(10)])
    message = refused("ppo", folder)
    assert "10 prompts" in message
    assert "prompts_per_step" in message


def test_a_folder_that_is_no_reward_model_is_refused(policy, tmp_path):
    config = {"policy": policy, "reward_model": policy}
    folder = run_folder(tmp_path, config, prompts=[prompt(0)])
    assert "reward_model.json" in refused("evaluate", folder)


def test_an_unknown_setting_is_refused_by_name(policy, tmp_path):
    folder = run_folder(tmp_path, {"policy": policy, "temprature": 1.0}, prompts=[prompt(0)])
    assert "'temprature'" in refused("generate", folder)


def test_evaluate_lets_opponents_answer_again_with_its_own_settings(policy, tmp_path):
    other = make_policy(tmp_path / "other", seed=5)
    config = {"policy": policy, "samples_per_prompt": 2, "temperatures": [1.0]} | SHORT
    config["opponents"] = {"base": policy, "previous": str(other)}
    folder = run_folder(tmp_path / "run", config, prompts=[prompt(i) for i in range(5)])
    run_here("evaluate", folder)
    own, base, previous = (
        rows_of(folder / name)
        for name in ("samples.jsonl", "opponents/base.jsonl", "opponents/previous.jsonl")
    )
    assert base == own, "the policy itself is not sampled twice"
    assert len(previous) == len(own) == 10
    assert [row["text"] for row in previous] != [row["text"] for row in own]
    assert all(row["n_tokens"] <= 10 for row in previous)
