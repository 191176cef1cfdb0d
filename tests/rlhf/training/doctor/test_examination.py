"""The doctor finds what would go wrong before any compute is spent, and touches nothing."""

import json
import shutil
import subprocess
import sys

import pytest

from rlhf.training import ppo, reward_model
from rlhf.training.doctor import stages
from rlhf.training.doctor.__main__ import main
from rlhf.training.doctor.examination import examine
from rlhf.training.doctor.report import Report
from rlhf.training.doctor.settings_check import check_settings
from rlhf.training.reward_models.folder import load_reward_model, save_reward_model
from rlhf.training.rundir.checkpoints import save_checkpoint
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest, run_stage
from tests.rlhf.training.test_bad_input import (
    heads,
    nan,
    silent_template,
    truncated,
    without_a_layer,
    without_eos,
)
from tests.rlhf.training.tiny import (
    ROOT,
    ask,
    judgment,
    make_policy,
    prompt,
    result_of,
    rows_of,
    run_folder,
)


def messages(report, level):
    return [f.message for f in report.findings if f.level == level]


@pytest.fixture
def healthy(ready):
    """A PPO run whose policy has room to end its answers."""
    return lambda **settings: ready(**({"max_new_tokens": 40} | settings))


def test_a_healthy_run_gets_figures_and_nothing_is_written(healthy):
    folder = healthy()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    report = examine(folder)
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert report.stage == "ppo"
    assert messages(report, "error") == []
    about = {f.about for f in report.findings}
    assert about >= {"settings", "tokenizer", "end", "lengths", "batches", "answers", "reward"}
    assert about >= {"memory", "time"}
    figures = report.figures
    assert figures["reward_spread"] > 0.05
    assert figures["best_of_8_headroom"] > figures["reward_spread"]
    assert figures["updates"] == 2 * 2 * 2
    assert figures["passes"] == 1.0
    assert 0 < figures["memory"]["needed"] < 1e9
    assert figures["seconds"]["run"] == pytest.approx(2 * figures["seconds"]["step"])


def test_as_a_command_it_prints_json_and_says_2_for_errors(ready):
    folder = ready(prompts_per_step=25, kl_wieght=0.1)
    command = [sys.executable, "-m", "rlhf.training.doctor", str(folder)]
    done = subprocess.run(
        [*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert report["exit_code"] == 2
    assert report["findings"][0]["message"] == (
        "'kl_wieght' is not a setting of ppo; did you mean 'kl.weight'?"
    )


def test_the_report_for_people_names_what_it_found(ready, capsys):
    assert main([str(ready(prompts_per_step=25)), "--no-samples"]) == 2
    output = " ".join(capsys.readouterr().out.split())
    assert "✗ batches 24 prompts are fewer than the 25 of one step" in output
    assert "It can't run with these errors." in output


def test_long_prompts_are_an_error_or_left_out(healthy):
    long = prompt(99) | {"messages": ask("nice " * 200)}
    for long_prompts, level in (("refuse", "error"), ("leave_out", "warning")):
        folder = healthy(name=long_prompts, long_prompts=long_prompts)
        with (folder / "data" / "prompts.jsonl").open("a") as file:
            file.write(json.dumps(long) + "\n")
        report = examine(folder, probe=False)
        assert any("1 of 25 prompts leave no room" in m for m in messages(report, level))


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [(silent_template, "drops the system turn"), (without_eos, "no end-of-sequence token")],
)
def test_a_template_or_tokenizer_that_loses_something_is_an_error(
    breaks, expected, healthy, talker, tmp_path
):
    model = shutil.copytree(talker, tmp_path / "model")
    breaks(model)
    folder = healthy(policy=str(model))
    path = folder / "data" / "prompts.jsonl"
    system = [{"role": "system", "content": "be nice"}, *ask("please")]
    rows = [json.loads(line) | {"messages": system} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = examine(folder)
    assert report.exit_code == 2
    assert any(expected in message for message in messages(report, "error"))


def test_a_token_that_only_the_template_ends_answers_with_is_a_stop_token(
    healthy, talker, tmp_path
):
    model = shutil.copytree(talker, tmp_path / "model")
    template = (model / "chat_template.jinja").read_text()
    (model / "chat_template.jinja").write_text(template.replace("<|end|>", "<|pad|>"))
    report = examine(healthy(policy=str(model)), probe=False)
    assert "Answers end with <|pad|>, by the policy's template, or with <|end|>." in messages(
        report, "ok"
    )
    assert not messages(report, "error")


def test_rewards_that_are_all_alike_are_a_warning(healthy, taste, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    flat = shutil.copytree(taste / "train", tmp_path / "flat")
    tensors = load_file(flat / "heads.safetensors")
    save_file(
        {n: torch.zeros_like(t) if n == "weight" else t for n, t in tensors.items()},
        flat / "heads.safetensors",
    )
    report = examine(healthy(reward_model=str(flat)))
    assert any("almost nothing to optimize" in m for m in messages(report, "warning"))
    assert report.exit_code == 1


def test_the_examined_reward_is_the_one_that_ppo_maximizes(healthy):
    """Clip, rules and the score of an answer without end are in it, as in a step of PPO."""
    plain, clipped, ruled, unended = (
        examine(healthy(name=name, **settings)).figures
        for name, settings in {
            "plain": {},
            "clipped": {"score_clip": 0.01},
            "ruled": {"rules": {"must_not_say": 50.0}, "forbidden_phrases": ["nice"]},
            "unended": {"no_eos_score": -90.0},
        }.items()
    )
    assert plain["reward_spread_of_ended"] > 0.2
    assert clipped["reward_spread_of_ended"] <= 0.02
    assert ruled["reward_spread"] > 2 * plain["reward_spread"]
    assert unended["reward_spread"] > 5 * plain["reward_spread"]
    assert unended["reward_spread_of_ended"] == plain["reward_spread_of_ended"]


def test_where_only_ending_pays_it_says_so(healthy):
    report = examine(healthy(score_clip=0.01))
    assert any(
        "apart from ending there is almost nothing" in m for m in messages(report, "warning")
    )


def test_more_memory_than_the_machine_has_is_an_error(healthy, monkeypatch):
    for free in (1e5, 1e6):  # too little for the files already, and for training
        monkeypatch.setattr(stages, "available_memory", lambda device_type, free=free: free)
        report = examine(healthy(), probe=False)
        assert any("bigger machine" in m for m in messages(report, "error"))


def test_an_ensembles_other_models_take_memory_too(healthy, taste, tmp_path):
    model = load_reward_model(taste / "train")
    model.others = [load_reward_model(taste / "train", prior=model.prior) for _ in range(2)]
    save_reward_model(model, tmp_path / "ensemble")
    one, three = (
        examine(healthy(name=name, reward_model=str(path)), probe=False).figures["memory"]
        for name, path in (("one", taste / "train"), ("three", tmp_path / "ensemble"))
    )
    trunk = sum(p.numel() * 4 for p in model.trunk.parameters())
    more = three["parts"]["reward_model"] - one["parts"]["reward_model"]
    assert 2 * trunk <= more < 2.2 * trunk  # the prior is one


def rankings(folder, trunk, *, n=12, **settings):
    """A run of the reward_model stage."""
    both = {"helpfulness": [1, 2], "safety": [2, 1]}
    return run_folder(
        folder,
        {"trunk": trunk, "epochs": 3, "rankings_per_batch": 2, "test_share": 0.5, "threads": 1}
        | settings,
        preferences=[judgment(i, ["nice", "sorry no"], both) for i in range(n)],
        reference=[prompt(i) | {"text": "nice"} for i in range(n)],
    )


def test_reward_models_get_batches_memory_and_time_checked(talker, tmp_path):
    folder = rankings(tmp_path / "run", talker)
    report = examine(folder)
    assert (report.stage, messages(report, "error")) == ("reward_model", [])
    assert {f.about for f in report.findings} >= {"batches", "lengths", "memory", "time"}
    assert report.figures["seconds"]["run"] > report.figures["seconds"]["update"] > 0
    reward_model.main(folder, StopRequest())
    updates = len(rows_of(folder / "metrics.jsonl"))
    assert sum(report.figures["updates"].values()) == updates == 18
    few = examine(rankings(tmp_path / "few", talker, rankings_per_batch=16))
    assert any("less than one batch" in m for m in messages(few, "warning"))


@pytest.mark.parametrize(
    ("breaks", "expected"),
    [
        (lambda folder: gone("reference.jsonl")(folder), "data/reference.jsonl is missing"),
        (lambda folder: rankings(folder, "/nowhere"), "does not exist"),
        (lambda folder: rankings(folder, str(folder.parent / "talker"), n=1), "only one prompt"),
    ],
)
def test_what_the_reward_models_stage_refuses_the_doctor_refuses(
    breaks, expected, talker, tmp_path
):
    (tmp_path / "talker").symlink_to(talker)
    folder = rankings(tmp_path / "run", talker)
    breaks(folder)
    report = examine(folder)
    assert report.exit_code == 2
    assert any(expected in message for message in messages(report, "error"))
    with pytest.raises(InputError, match=expected):
        reward_model.main(folder, StopRequest())


def test_responses_that_are_the_same_after_truncation_are_left_out_and_counted(talker, tmp_path):
    both = {"helpfulness": [1, 2], "safety": [1, 2]}
    short = [judgment(i, ["nice", "sorry no"], both) for i in range(12)]
    long = [
        judgment(i, ["red " * 60 + end for end in ("yes", "no")], both, annotator="ben")
        for i in range(12)
    ]
    folder = rankings(tmp_path / "run", talker, max_length=32)
    run_folder(folder, json.loads((folder / "config.json").read_text()), preferences=short + long)
    report = examine(folder, probe=False)
    assert any("12 of 24 pairs of the train-RM's" in m for m in messages(report, "warning"))
    reward_model.main(folder, StopRequest())
    result = result_of(folder)
    assert any("12 of 24 pairs of the train-RM's" in warning for warning in result["warnings"])
    assert result["train"]["helpfulness"]["n"] == 6  # of ada alone

    run_folder(folder, json.loads((folder / "config.json").read_text()), preferences=long)
    (folder / "result.json").unlink()
    with pytest.raises(InputError, match="the same in the 32 tokens that are read"):
        reward_model.main(folder, StopRequest())


def test_a_crash_is_an_error_of_the_report(ready, monkeypatch):
    def crash(*_, **__):
        raise AttributeError("no cache")

    monkeypatch.setattr(stages, "check_policy", crash)
    report = examine(ready())
    assert report.exit_code == 2
    assert messages(report, "error") == ["The stage would crash: AttributeError: no cache."]


def test_a_selection_needs_a_reward_model_with_several_members(taste, many, tmp_path):
    waiting = [{"comparison_id": "c1", "messages": ask("please"), "responses": ["nice", "no"]}]
    for rewards, code in ((taste, 2), (many, 0)):
        config = {"reward_model": str(rewards / "train")}
        folder = run_folder(tmp_path / rewards.name, config, comparisons=waiting)
        assert examine(folder).exit_code == code


def test_other_stages_are_recognised(talker, tmp_path):
    short = {"policy": talker, "max_new_tokens": 4}
    for stage, config, data in (
        ("generate", short | {"k": 2}, {"prompts": [prompt(0)]}),
        ("evaluate", short | {"temperatures": [1.0]}, {"prompts": [prompt(0)]}),
        ("sft", {"policy": talker}, {"demonstrations": [prompt(0) | {"response": "yes"}]}),
        ("grow", {"policy": talker, "width": 2}, {}),
    ):
        report = examine(run_folder(tmp_path / stage, config, **data), probe=False)
        assert (report.stage, messages(report, "error")) == (stage, [])


# --- What PPO refuses, the doctor refuses -------------------------------------------------------


def rows(name, change):
    """A break that writes one more line to data/<name>.jsonl."""

    def breaks(folder, *_):
        path = folder / "data" / f"{name}.jsonl"
        with path.open("a") as file:
            file.write(change if isinstance(change, str) else json.dumps(change) + "\n")

    return breaks


def model(setting, damage):
    """A break that names a damaged copy of what a setting names."""

    def breaks(folder, copies):
        config = json.loads((folder / "config.json").read_text())
        copy = shutil.copytree(config[setting], copies / setting)
        damage(copy)
        (folder / "config.json").write_text(json.dumps(config | {setting: str(copy)}))

    return breaks


def set_to(**settings):
    """A break that changes settings."""

    def breaks(folder, *_):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | settings))

    return breaks


def gone(name):
    """A break that takes a file of data/ away."""
    return lambda folder, *_: (folder / "data" / name).unlink()


def of_other_words(folder):
    """A policy that speaks in other tokens."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    first, second = [word for word in vocabulary if word.isalpha() and len(word) > 2][:2]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def of_other_size(folder):
    """The same tokens, wider layers."""
    shutil.rmtree(folder)
    make_policy(folder, hidden=64)


def without_safety(folder):
    """A reward model that scores helpfulness only."""
    settings = json.loads((folder / "reward_model.json").read_text())
    settings["axes"] = ["helpfulness"]
    (folder / "reward_model.json").write_text(json.dumps(settings))
    change = {n: (lambda t: t[:1]) for n in ("weight", "bias", "log_nu")}
    heads(**change)(folder)


def without_a_setting(folder):
    settings = json.loads((folder / "reward_model.json").read_text())
    del settings["mean"]
    (folder / "reward_model.json").write_text(json.dumps(settings))


def a_damaged_checkpoint(folder, *_):
    save_checkpoint(folder, lambda made: (made / "state.json").write_text("{}"))
    (folder / "checkpoint" / "state.json").write_text("{")


LONG = prompt(99) | {"messages": ask("nice " * 200)}
REFUSED = {
    "an unknown setting": set_to(kl_wieght=0.1),
    "a value out of range": set_to(kl_weight=-1),
    "no prompts": gone("prompts.jsonl"),
    "a prompt cut short": rows("prompts", '{"prompt_id": "p9'),
    "a prompt that is there twice": rows("prompts", prompt(0)),
    "too few prompts": set_to(prompts_per_step=25),
    "a long prompt": rows("prompts", LONG),
    "a test-RM and nothing to watch": gone("watch.jsonl"),
    "a watch prompt cut short": rows("watch", '{"prompt_id": "p9'),
    "a watch prompt without an id": rows("watch", {"messages": ask("please")}),
    "a long watch prompt": rows("watch", LONG),
    "an unknown rule": set_to(rules={"must_refuse": 1.0, "be_nice": 1.0}),
    "no GPU": set_to(device="cuda:7"),
    "no policy": set_to(policy="/nowhere"),
    "a policy cut short": model("policy", truncated),
    "a policy whose answers can't end": model("policy", without_eos),
    "no reference": set_to(reference="/nowhere"),
    "a reference with NaN": model("reference", nan),
    "a reference without a layer": model("reference", without_a_layer),
    "a reference of other tokens": model("reference", of_other_words),
    "a reference of another size that should follow": model("reference", of_other_size),
    "no reward model": set_to(reward_model="/nowhere"),
    "a reward model without a setting": model("reward_model", without_a_setting),
    "a test reward model cut short": model("test_reward_model", truncated),
    "lagrange without a safety score": model("reward_model", without_safety),
    "a cap where one program does both": set_to(importance_cap=2.0),
    "a server that is nowhere": set_to(rollouts="server", lora_rank=2),
    "a server for all weights": set_to(rollouts="server"),
    "no texts to keep": (lambda folder, *_: (set_to(ptx_weight=1.0)(folder),
                                             gone("ptx.jsonl")(folder))),
    "a long text to keep": (lambda folder, *_: (set_to(ptx_weight=1.0)(folder),
                                                rows("ptx", LONG | {"response": "no"})(folder))),
    "too few answers to normalise on": set_to(normalise_samples=24, max_new_tokens=1),
    "a damaged checkpoint": a_damaged_checkpoint,
}  # fmt: skip
BESIDE = {
    "a reference of another size that should follow": {"reference_ema": 0.9},
    "lagrange without a safety score": {"combine": "lagrange"},
}
# What the doctor says in words of its own: all settings and all prompts at once.
IN_OTHER_WORDS = {
    "an unknown setting", "a value out of range", "too few prompts", "a long prompt",
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_ppo_refuses_the_doctor_refuses_in_the_same_words(
    what, ready, tmp_path, monkeypatch, capsys
):
    monkeypatch.delenv("ROLLOUT_SERVER_URL", raising=False)
    folder = ready(**BESIDE.get(what, {}))
    REFUSED[what](folder, tmp_path)
    report = examine(folder)
    with pytest.raises(SystemExit) as ended:
        run_stage(ppo.main, [str(folder)])
    error = json.loads((folder / "error.json").read_text())
    assert (ended.value.code, error["kind"]) == (2, "input"), error
    assert report.exit_code == 2, report.findings
    if what not in IN_OTHER_WORDS:
        assert error["message"] in messages(report, "error")


@pytest.mark.parametrize(("begun", "level"), [(False, "error"), (True, "warning")])
def test_every_setting_without_effect_is_named_and_stops_no_run_that_has_begun(begun, level):
    report = Report("ppo")
    values = {"policy": "p", "reference": "p", "reward_model": "r", "test_reward_model": "t"}
    values |= {"kl_target": 3.0, "ptx_batch_size": 2}
    config = check_settings(report, values, has_begun=begun)
    assert (config is not None) == begun
    named = [f.message for f in report.findings if f.level == level]
    assert [message.split()[1] for message in named] == ["kl.target", "ptx.batch_size"]
