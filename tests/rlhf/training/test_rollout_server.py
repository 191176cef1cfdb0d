"""Rollouts by a server: against a stand-in that speaks vLLM's documented protocol (stand_in.py). The
real one can't be installed here."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch

from rlhf.launchers.local import environment
from rlhf.training import rollout_server, rollouts
from rlhf.training.rundir.errors import InputError
from tests.rlhf.training.conftest import finish, weights
from tests.rlhf.training.stand_in import KEY, StandIn
from tests.rlhf.training.test_ppo_resume import without_clocks
from tests.rlhf.training.test_rollouts import PROMPTS, gap, models_of, nudge
from tests.rlhf.training.tiny import result_of, rows_of, run

SERVED = {"rollouts": "server", "lora_rank": 4}


@pytest.fixture
def stand_in(talker, monkeypatch):
    """Starts stand-ins; runs use the last one."""
    started = []

    def start(**options):
        started.append(StandIn(talker, **options))
        monkeypatch.setenv(rollout_server.URL, started[-1].url)
        monkeypatch.setenv(rollout_server.TOKEN, KEY)
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_server_samples_from_the_policy_as_it_is_now(ready, stand_in):
    served = stand_in()
    models = models_of(ready(temperature=0.7, max_new_tokens=30, **SERVED))
    for _ in range(2):
        nudge(models)
        answers = models.sample(PROMPTS, 2, seed=1)
        assert [len(group) for group in answers] == [2] * len(PROMPTS)
        assert gap(models, answers)["sampler_gap"] < 1e-5
        flat = [answer for group in answers for answer in group]
        with models.policy.adapters_off():
            base, _, _, mask = models.read([p for p in PROMPTS for _ in range(2)], flat)
        assert float((base - rollouts.sampler_logprobs(flat)).abs()[mask].mean()) > 0.01
    assert served.loaded == 2
    first, last = served.asked[0], served.asked[-1]
    assert first["model"] == last["model"]
    assert first["cache_salt"] != last["cache_salt"]
    assert len({body["seed"] for body in served.asked}) == len(PROMPTS)
    sent = {name: last[name] for name in ("top_k", "top_p", "min_p", "repetition_penalty")}
    assert sent == {"top_k": -1, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0}
    name = first["model"]
    del models, answers, flat
    gc.collect()
    assert name not in served.adapters  # what a run leaves behind


def test_ppo_learns_from_a_server_and_tells_no_one_its_key(ready, stand_in):
    stand_in()
    folder = ready(
        steps=14,
        prompts_per_step=24,
        minibatch_size=12,
        learning_rate=1e-2,
        kl_weight=0.0,
        tripwire_evaluations=0,
        **SERVED,
    )
    finish(folder)
    lines = rows_of(folder / "metrics.jsonl")
    rewards = [line["reward"] for line in lines]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.4
    assert all(line["sampler_gap"] < 1e-5 for line in lines)
    for path in folder.rglob("*"):
        assert path.is_dir() or KEY.encode() not in path.read_bytes()


def test_a_server_that_rounds_shows_on_the_curve_and_a_cap_weighs_it(ready, stand_in):
    stand_in(dtype=torch.bfloat16)
    plain, capped = ready("plain", **SERVED), ready("capped", importance_cap=1.0, **SERVED)
    finish(plain)
    finish(capped)
    line = rows_of(plain / "metrics.jsonl")[0]
    assert 1e-4 < line["sampler_gap"] < 0.1
    assert line["sampler_kl"] > 0
    assert weights(plain) != weights(capped)


def test_a_run_whose_server_dies_ends_with_2_and_resumes_when_it_is_back(ready, stand_in):
    settings = {"steps": 4, "checkpoint_every": 1, **SERVED}
    whole, broken = ready("whole", **settings), ready("broken", **settings)
    stand_in()
    finish(whole)
    dying = stand_in()
    dying.lives = 6
    port = dying.http.server_port
    ended = run("ppo", broken)
    assert ended.returncode == 2
    assert "resumes from its last checkpoint" in ended.stderr
    assert KEY not in ended.stderr + ended.stdout
    assert json.loads((broken / "error.json").read_text())["kind"] == "input"
    dying.stop()
    stand_in(port=port)
    finish(broken)
    assert result_of(broken)["steps"] == 4
    assert without_clocks(broken) == without_clocks(whole)
    assert weights(broken) == weights(whole)


def change(**values):
    return lambda choice: choice | {k: v(choice) if callable(v) else v for k, v in values.items()}


FAULTS = {
    "no token ids": (change(token_ids=None), "returns no token ids"),
    "another tokenizer": (
        change(prompt_token_ids=lambda c: [*c["prompt_token_ids"], 1]),
        "other token ids than it was sent",
    ),
    "unknown ids": (change(token_ids=lambda c: [10**6]), "that the policy does not have"),
    "lacking log-probabilities": (
        change(logprobs=lambda c: {"token_logprobs": c["logprobs"]["token_logprobs"][1:]}),
        "do not belong to its tokens",
    ),
    "null": (change(logprobs=None), "left out or garbled"),
    "half a response": (
        change(token_ids=[5], logprobs={"token_logprobs": [-1.0]}),
        "without a token that ends one",
    ),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_response_that_is_not_as_documented_is_named(ready, stand_in, fault):
    served = stand_in()
    served.spoil, expected = FAULTS[fault]
    models = models_of(ready(**SERVED))
    with pytest.raises(InputError, match=expected) as raised:
        models.sample(PROMPTS[:1], 1, seed=1)
    assert "\n" not in str(raised.value)


def test_a_server_that_goes_wrong_is_named_in_one_sentence(ready, stand_in, monkeypatch):
    served = stand_in()
    folder = ready(**SERVED)
    models, hasty = models_of(folder), models_of(ready("hasty", server_timeout=0.3, **SERVED))
    served.refuses = {"load_lora_adapter": (404, {"detail": "Not Found"})}
    with pytest.raises(InputError, match=r"refused the adapters \(404.*--enable-lora"):
        models.sample(PROMPTS, 1, seed=1)
    served.refuses = {"completions": (500, {"error": "engine is dead"})}
    with pytest.raises(InputError, match=r"refused a prompt \(500.*engine is dead"):
        models.sample(PROMPTS, 1, seed=1)
    served.refuses, served.waits = {}, 5.0
    with pytest.raises(InputError, match=r"did not answer within 0.3 seconds"):
        hasty.sample(PROMPTS, 1, seed=1)
    served.delay.set()
    monkeypatch.setenv(rollout_server.TOKEN, "another")
    with pytest.raises(InputError, match=r"refuses our key; set ROLLOUT_SERVER_TOKEN"):
        models_of(folder).sample(PROMPTS, 1, seed=1)
    monkeypatch.setenv(rollout_server.TOKEN, KEY)
    served.base = "/elsewhere/another"
    with pytest.raises(InputError, match=r"serves /elsewhere/another, served-name, not the policy"):
        models_of(folder)
    served.stop()
    with pytest.raises(InputError, match=r"is gone \(ConnectionRefusedError\)"):
        models_of(folder)


def test_other_weights_or_another_temperature_stop_the_run(ready, stand_in):
    stand_in(raw=True)
    with pytest.raises(InputError, match=r"another temperature .*processed_logprobs"):
        finish(ready("cold", temperature=0.5, **SERVED))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("", "is not set"),
        ("ftp://gpu/v1", "begins with http"),
        ("file:///etc/passwd", "begins with http"),
        ("http://user:secret@gpu/v1", "holds no user"),
        ("http://gpu:port/v1", "begins with http"),
        ("http://gpu/v1?key=secret", "question mark"),
    ],
)
def test_an_address_is_http_and_holds_no_secret(ready, monkeypatch, address, expected):
    monkeypatch.setenv(rollout_server.URL, address)
    with pytest.raises(InputError, match=expected) as raised:
        models_of(ready(**SERVED))
    assert "secret" not in str(raised.value)


def test_all_weights_are_not_sent_over_http(ready, stand_in):
    stand_in()
    with pytest.raises(InputError, match=r"lora\.rank is 0"):
        models_of(ready(rollouts="server"))


def test_a_redirect_is_not_followed(ready, stand_in):
    served = stand_in()
    served.refuses = {"load_lora_adapter": (302, {})}
    with pytest.raises(InputError, match=r"refused the adapters \(302"):
        models_of(ready(**SERVED)).sample(PROMPTS, 1, seed=1)


def test_only_ppo_gets_the_address_of_the_server(settings):

    settings.ROLLOUT_ENVIRONMENT = {"ROLLOUT_SERVER_TOKEN": KEY}
    seen = {stage: environment(SimpleNamespace(stage=stage)) for stage in ("ppo", "evaluate")}
    assert seen["ppo"]["ROLLOUT_SERVER_TOKEN"] == KEY
    assert KEY not in seen["evaluate"].values()
    assert "PATH" in seen["evaluate"]
