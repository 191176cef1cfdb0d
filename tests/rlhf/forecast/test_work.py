"""What a stage will do: counted by hand for small settings."""

from dataclasses import replace

import pytest

from rlhf.computing_cost import sections_of
from rlhf.forecast.work import Counts, Lengths, split, work_of

COUNTS = Counts(ranking=10, comparisons=20, ppo=40, watch=5, heldout=7)
NEVER = Lengths(prompt=30.0, stop_rate=0.0)
CONFIG = {
    "round": {"reference_prompts": 8},
    "generate": {"k": 4, "oversample": 1, "max_new_tokens": 20, "batch_size": 16},
    "reward_model": {
        "epochs": 2, "rankings_per_batch": 4, "test_share": 0.25, "prior": False, "max_length": 512,
    },
    "ppo": {
        "steps": 3,
        "rollout": {"prompts_per_step": 8, "max_new_tokens": 20},
        "optimizer": {"epochs": 2, "minibatch_size": 4},
        "critic": {"warmup_steps": 1},
        "tripwire": {"watch_every": 2},
    },
    "evaluate": {
        "samples_per_prompt": 2, "max_new_tokens": 20, "batch_size": 8, "temperatures": [1.0, 0.3],
    },
}  # fmt: skip


def work(stage, counts=COUNTS, lengths=NEVER, **changes):
    config = {name: CONFIG[name] | changes.get(name, {}) for name in CONFIG}
    return work_of(stage, sections_of(config), counts, lengths)


def rows(of):
    return sum(d.batches * d.rows for d in of.decodes)


def test_generate_decodes_every_prompt_that_exists_with_one_response_to_spare():
    done = work("generate")
    assert rows(done) == 10 * (4 + 1)
    # 16 rows hold three prompts of five responses each: three full batches and one prompt.
    assert [(d.batches, d.rows) for d in done.decodes] == [(3, 15), (1, 5)]
    assert done.prefill_tokens == 10 * 30
    assert done.loads == 1


def test_reward_models_read_each_comparison_once_an_epoch():
    assert split(20, 0.25) == (15, 5)
    done = work("reward_model")
    assert done.reward_tokens == 2 * 20 * (30 + 4 * 20), "the prompt once, then four responses"
    assert done.reward_updates == 2 * (4 + 2)
    unshared = work("reward_model", lengths=replace(NEVER, shares_prompts=False))
    assert unshared.reward_tokens == 2 * 20 * 4 * (30 + 20)
    # Both score the reference's 8 texts, and each the other side's 20 comparisons in all.
    assert done.score_tokens == (2 * 8 + 20 * 4) * 50
    assert done.prior_tokens == 0
    assert work("reward_model", reward_model={"prior": True}).prior_tokens == (80 + 96) * 50


def test_an_ensemble_of_models_is_so_many_times_the_work():
    alone, three = work("reward_model"), work(
        "reward_model", reward_model={"members": 3, "ensemble": "models"}
    )  # fmt: skip
    assert three.reward_tokens == 3 * alone.reward_tokens
    assert three.reward_updates == 3 * alone.reward_updates
    heads = work("reward_model", reward_model={"members": 3})
    assert heads.reward_tokens == alone.reward_tokens, "heads share the trunk's passes"


def test_ppo_trains_on_each_response_once_an_epoch_after_the_critics_warm_up():
    done = work("ppo")
    assert done.train_tokens == (3 - 1) * 8 * 50 * 2
    assert done.updates == (3 - 1) * 2 * 2
    # Each step is read under the reference, and during the warm-up for the critic.
    assert done.read_tokens == 3 * 8 * 50 + 1 * 8 * 50 * 2
    # Three rollouts of 8, and the watch prompts at the beginning, at the end and twice between.
    assert rows(done) == 3 * 8 + 4 * 5
    assert done.score_tokens == (3 * 8 + 2 * 4 * 5) * 50


def test_evaluate_scores_both_opponents_from_the_second_round_on():
    done = work("evaluate")
    assert rows(done) == 7 * 2 * 2
    assert done.score_tokens == 7 * 2 * 2 * 50 * 2
    later = work("evaluate", replace(COUNTS, has_previous=True))
    assert later.score_tokens == 7 * 2 * 2 * 50 * 3


@pytest.mark.parametrize(
    ("rate", "budget", "expected"),
    [(0.0, 40, 40.0), (1.0, 40, 1.0), (0.5, 2, 1.5), (0.1, 1000, 10.0)],
)
def test_a_response_is_as_long_as_it_takes_to_end_within_its_budget(rate, budget, expected):
    assert Lengths(1.0, rate).response(budget) == pytest.approx(expected)
