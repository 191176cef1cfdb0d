"""Refine a policy by PPO against a reward model: `python -m rlhf.training.ppo RUN_DIR`.

Proximal policy optimization (Schulman et al. 2017) as it is done on language models (Ziegler et al.
2019, Stiennon et al. 2020, Ouyang et al. 2022), with the details collected by Huang et al. (2024,
"The N+ implementation details of RLHF with PPO"; they call lm-human-preferences LHP). Read `main`
from top to bottom: it is the algorithm. Its arithmetic is in `ppo_math`, its updates are in
`ppo_updates`. `ppo_keeper` decides which policy is kept and when a run stops.

Random draws depend on the seed and the step's number alone, so a run that was killed and resumed
makes the same draws as one that was not. Several processes may share the work of each step
(`parallel`); one of them writes.
"""

from itertools import chain
from pathlib import Path

from rlhf.training import ppo_math
from rlhf.training.configs import PPOConfig
from rlhf.training.ppo_inputs import prepare, repeat_each
from rlhf.training.ppo_keeper import PolicyKeeper
from rlhf.training.ppo_models import derive_seed
from rlhf.training.ppo_report import RunReport, StepClock, describe_rollout
from rlhf.training.ppo_updates import Rollout, update
from rlhf.training.rundir import CONFIG
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import Progress
from rlhf.training.settings import load


def main(run_dir: Path, stop: StopRequest) -> None:
    config = load(PPOConfig, run_dir / CONFIG)
    progress = Progress(run_dir)
    progress.phase("loading the models")
    inputs, models = prepare(run_dir, config)
    models.progress, progress.writes = progress, models.group.is_main_process
    optimizer, kl_controller = models.new_optimizer(), ppo_math.new_kl_controller(config.kl)
    keeper = PolicyKeeper(run_dir, config, models, optimizer, inputs.watch)
    keeper.start_or_resume(inputs, kl_controller)
    report = RunReport(run_dir, keeper)
    progress.of_run(keeper.state.step, config.steps, "steps")

    while keeper.should_continue:
        step, clock = keeper.state.step + 1, StepClock()
        watch_means = keeper.watch()  # the tripwire, on prompts that are not trained on
        if keeper.state.stop_reason:
            break

        # 1. Rollout: the policy answers the next prompts (Ouyang et al. 2022, section 3.5).
        prompts, queries = inputs.batch(step)
        k = config.rollout.samples_per_prompt
        samples = models.sample(queries, k, seed=derive_seed(config.seed, step))
        prompts, queries = repeat_each(prompts, k), repeat_each(queries, k)
        responses = list(chain.from_iterable(samples))
        clock.mark("generate")

        # 2. Reward model scores, one per response. A response without an end token gets a fixed
        #    score, because reward models have never seen half a sentence (LHP's EOS trick).
        scores, score_means = models.score(prompts, responses)

        # 3. Log-probabilities of policy and reference, values of the critic; all per token. A
        #    weight for each token whose sampler has other probabilities (Yao et al. 2025).
        logprobs, reference_logprobs, values, mask = models.read(queries, responses)
        keeper.check_start(logprobs, reference_logprobs, mask)
        importance, sampler_gap = models.importance_weights(responses, logprobs, mask)
        clock.mark("score")

        # 4. Rewards per token: minus the weighted KL, plus the score at the end (Ziegler et al.
        #    2019, eq. 2). k1 decides: a token that only the reference expects has 10^5 nats of k3.
        kl = ppo_math.kl_k1(logprobs, reference_logprobs) * mask
        mean_kl = float(kl.sum(dim=1).mean())  # nats per response
        keeper.keep_within_budget(mean_kl)
        rewards = ppo_math.token_rewards(scores, kl, mask, kl_weight=kl_controller.weight)
        if config.advantage.whiten_rewards:
            rewards = ppo_math.whiten(rewards, mask, shift_mean=False)

        # 5. Advantages and returns: generalized advantage estimation (Schulman et al. 2016, eq. 16)
        gamma, lam = config.advantage.gamma, config.advantage.lam
        advantages, returns = ppo_math.advantages_and_returns(
            rewards, values, mask, gamma=gamma, lam=lam
        )
        if config.advantage.whiten:
            advantages = ppo_math.whiten(advantages, mask)

        # 6. Clipped updates of policy and critic: epochs of shuffled minibatches (Schulman et al.
        #    2017, eq. 7 and algorithm 1; PPO-ptx: Ouyang et al. 2022, eq. 2).
        tokens = [response.tokens for response in responses]
        rollout = Rollout(queries, tokens, mask, logprobs, advantages, returns, values, importance)
        before = keeper.state.skipped_in_a_row
        updates = update(
            models, optimizer, rollout, config, step, inputs.ptx_examples, skipped_before=before
        )
        keeper.after_updates(updates)
        clock.mark("train")

        # 7. The controllers of the KL weight (Ziegler et al. 2019, section 2.2) and of the Lagrange
        #    multiplier (Dai et al. 2023, eq. 11).
        kl_weight = kl_controller.weight
        kl_controller.update(mean_kl, len(responses))
        models.reward.update_multiplier(score_means)

        metrics = describe_rollout(rollout, reference_logprobs, scores, responses)
        metrics |= score_means | watch_means | sampler_gap | updates.means
        metrics["kl_weight"] = kl_weight
        keeper.end_step(step, clock.total, metrics, kl_controller.weight)
        report.write_step(step, clock, metrics)
        keeper.stop_or_save(mean_kl, stop)

    report.write_outputs()


if __name__ == "__main__":
    run_stage(main)
