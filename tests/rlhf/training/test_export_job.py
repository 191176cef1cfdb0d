"""A PPO run handed to OpenRLHF, verl or NeMo-RL: names that their releases know, data and rewards that work."""

import importlib.util
import json
import shlex
import sys
import types
from typing import Any, NamedTuple

import pytest

from rlhf.training import export_job
from rlhf.training.configs import PPOConfig
from rlhf.training.reward_models.folder import load_reward_model
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training import engine_names
from tests.rlhf.training.tiny import ask, rows_of

ENGINES = ("openrlhf", "verl", "nemo-rl")

OTHER_SETTINGS = {
    "lora_rank": 4,
    "lora_alpha": 8.0,
    "kl_controller": "adaptive",
    "dual_clip": 3.0,
    "entropy_bonus": 0.01,
    "loss_average": "sequences",
    "score_clip": 5.0,
}


def exported(folder, engine, **options):
    out = export_job.export(folder, engine, **options)
    return out, json.loads((out / "export.json").read_text())


@pytest.mark.parametrize("changes", [{}, OTHER_SETTINGS], ids=["usual", "others"])
@pytest.mark.parametrize("engine", ENGINES)
def test_only_names_that_were_checked_against_the_release_are_written(engine, changes, ready):
    _, export = exported(ready(**changes), engine, gpus=4, tensor_parallel=2)
    assert export["version"] == engine_names.VERSIONS[engine]
    assert set(export["settings"]) <= engine_names.NAMES[engine]


@pytest.mark.parametrize("engine", ENGINES)
def test_every_setting_is_translated_or_named_as_left_behind(engine, ready):
    """A value of its own for each number shows up in the engine's settings, or is named."""
    folder = ready(
        learning_rate=0.00123,
        value_learning_rate=0.00456,
        clip=0.17,
        value_clip=0.19,
        gamma=0.98,
        lam=0.91,
        kl_weight=0.037,
        temperature=0.83,
        epochs=3,
        weight_decay=0.011,
        critic_warmup_steps=7,
        tripwire_drop=0.77,
        approx_kl_stop=0.21,
    )
    out, export = exported(folder, engine)
    written = {v for v in export["settings"].values() if isinstance(v, float | int)}
    for value in (0.00123, 0.00456, 0.17, 0.19, 0.98, 0.91, 0.037, 0.83, 3, 0.011, 7):
        assert value in written, value
    assert {"tripwire.drop", "loss.approx_kl_stop", "test_reward_model"} <= set(
        export["left_behind"]
    )
    assert set(export["left_behind"]) <= set(PPOConfig.settings())
    command = shlex.split((out / "launch.sh").read_text().split("exec", 1)[1].replace("\\\n", " "))
    assert command[:2] == ["python3", "start.py" if engine == "nemo-rl" else "-m"]


@pytest.mark.parametrize("engine", ENGINES)
def test_what_an_engine_does_not_ask_for_is_named_even_where_it_is_switched_off(engine, ready):
    folder = ready(
        whiten_advantages=False,
        ema_decay=0.9,
        ensemble="min",
        score_scale="raw",
        overlong_buffer=2,
        seed=5,
    )
    _, export = exported(folder, engine)
    left_behind = set(export["left_behind"])
    assert {"ema.decay", "reward.ensemble", "reward.scale"} <= left_behind
    assert "reward.overlong_buffer" in left_behind
    assert "seed" not in export["left_behind"]
    translated = "ppo.adv_estimator.normalize_advantages" in export["settings"]
    assert ("advantage.whiten" in left_behind) is not translated


def test_a_multiplier_that_learns_is_refused_and_nothing_is_written(ready):
    folder = ready(combine="lagrange")
    with pytest.raises(InputError, match=r"combine is 'lagrange'.*'threshold' or 'weights'"):
        export_job.export(folder, "verl")
    assert not (folder / "export").exists()


@pytest.mark.parametrize("engine", ["openrlhf", "verl"])
def test_the_reward_function_gives_what_our_reward_model_gives(engine, ready, taste):
    out, _ = exported(ready(combine="weights", weights={"safety": 0.5}), engine)
    spec = importlib.util.spec_from_file_location(f"reward_of_{engine}", out / "reward.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = "nice nice lamp"
    label = json.dumps({"messages": ask("please paint my red lamp"), "risk": "harmless"})
    axes = load_reward_model(taste / "train").score([ask("please paint my red lamp")], [text])
    expected = float(axes["helpfulness"] + 0.5 * axes["safety"])
    rendered = "<|user|>please paint my red lamp<|end|><|assistant|>"
    if engine == "openrlhf":
        rewards = module.reward_func([f"{rendered}{text}<|end|>"], [rendered], [label])
        assert float(rewards["rewards"][0]) == pytest.approx(expected, abs=1e-5)
    else:
        score = module.compute_score("ground-control", text, label, extra_info={})
        assert score == pytest.approx(expected, abs=1e-5)


class Returned(NamedTuple):
    """The fields of NeMo-RL's EnvironmentReturn (nemo_rl/environments/interfaces.py, 0b8a793)."""

    observations: list
    metadata: list
    next_stop_strings: list
    rewards: Any
    terminateds: Any
    answers: list | None = None


def test_nemo_rls_environment_gives_what_our_reward_model_gives(ready, taste, talker, monkeypatch):
    """With stand-ins for what it imports of ray and NeMo-RL, which are not to be had here."""
    from transformers import AutoTokenizer

    out, _ = exported(ready(combine="weights", weights={"safety": 0.5}), "nemo-rl")
    interfaces = types.SimpleNamespace(EnvironmentInterface=object, EnvironmentReturn=Returned)
    for name, module in {
        "ray": types.SimpleNamespace(remote=lambda cls: cls),
        "nemo_rl": types.ModuleType("nemo_rl"),
        "nemo_rl.environments": types.ModuleType("nemo_rl.environments"),
        "nemo_rl.environments.interfaces": interfaces,
        "reward": None,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    del sys.modules["reward"]
    monkeypatch.syspath_prepend(str(out))
    spec = importlib.util.spec_from_file_location("environment_of_nemo_rl", out / "environment.py")
    environment = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(environment)

    line = rows_of(out / "prompts.jsonl")[0] | {"task_name": "prompts"}
    tokenizer = AutoTokenizer.from_pretrained(talker)
    datum = environment.read_prompt(line, None, tokenizer, 100, 0)
    (message,) = datum["message_log"]
    assert tokenizer.decode(message["token_ids"]) == message["content"]
    assert message["content"].endswith("<|assistant|>")
    assert (datum["length"], datum["loss_multiplier"]) == (len(message["token_ids"]), 1.0)
    assert environment.read_prompt(line, None, tokenizer, 3, 0)["loss_multiplier"] == 0.0

    log = [message, {"role": "assistant", "content": "nice nice lamp<|end|>"}]
    given = environment.RewardModel({}).step([log, log], [datum["extra_env_info"]] * 2)
    axes = load_reward_model(taste / "train").score([line["messages"]], ["nice nice lamp"])
    expected = float(axes["helpfulness"] + 0.5 * axes["safety"])
    assert given.rewards.tolist() == pytest.approx([expected] * 2, abs=1e-5)
    assert given.terminateds.tolist() == [True, True]
    assert {len(part) for part in given} == {2}


def test_prompts_are_written_as_each_engine_reads_them(ready):
    import pyarrow.parquet as pq

    folder = ready()
    theirs = rows_of(exported(folder, "openrlhf")[0] / "prompts.jsonl")
    assert len(theirs) == 24
    assert theirs[0]["input"][-1]["role"] == "user"
    messages = rows_of(exported(folder, "nemo-rl")[0] / "prompts.jsonl")
    assert [row["messages"] for row in messages] == [row["input"] for row in theirs]
    rows = pq.read_table(exported(folder, "verl")[0] / "prompts.parquet").to_pylist()
    assert [row["prompt"] for row in rows] == [row["input"] for row in theirs]
    assert [row["reward_model"]["ground_truth"] for row in rows] == [r["label"] for r in theirs]


def test_an_export_is_never_written_over_and_bad_input_leaves_none(ready, capsys):
    folder = ready()
    assert export_job.main([str(folder), "--engine", "verl"]) == 0
    assert export_job.main([str(folder), "--engine", "verl"]) == 2
    assert "is there already" in capsys.readouterr().err
    bad = ready(name="bad", reward_model="/no/such/model")
    assert export_job.main([str(bad), "--engine", "verl"]) == 2
    assert not (bad / "export" / "verl").exists()
    odd = [str(ready(name="odd")), "--engine", "verl", "--gpus", "4", "--tensor-parallel", "3"]
    assert export_job.main(odd) == 2
    for none in (["--gpus", "0"], ["--tensor-parallel", "0"]):
        assert export_job.main([*odd[:3], *none]) == 2
        assert f"{none[0].removeprefix('--')} must be 1 or more, got 0." in capsys.readouterr().err
