"""Reward models: text in, one score per axis out. `rlhf.training.reward_model` trains them.

`model` scores; `texts`, `hidden_states` and `prior` compute the inputs of its heads; `scale` makes
scores comparable between rounds; `folder` loads and saves.
"""
