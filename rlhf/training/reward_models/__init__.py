"""Reward models: text in, one score per axis out. `rlhf.training.reward_model` trains them.

`model` scores; `texts`, `hidden_states` and `prior` are what its heads read; `scale` makes scores
comparable between rounds; `folder` loads and saves.
"""
