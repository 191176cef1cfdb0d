"""The inputs of a PPO run."""

from rlhf.training import (
    ppo_inputs,
)


def test_every_pass_over_the_prompts_uses_each_once_in_a_new_order():
    steps = [ppo_inputs.choose_prompts(10, 4, index, seed=0) for index in range(5)]
    flat = [i for step in steps for i in step]
    assert sorted(flat[:10]) == sorted(flat[10:]) == list(range(10))
    assert flat[:10] != flat[10:]
    assert ppo_inputs.choose_prompts(10, 4, 3, seed=0) == steps[3]
