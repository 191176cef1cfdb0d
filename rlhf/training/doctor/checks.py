"""Checks of prompts, tokenizer, lengths and batches before a stage runs."""

import functools
import statistics
from collections.abc import Callable
from typing import Any

from rlhf.training.configs import PPOConfig
from rlhf.training.doctor.report import Report


def check_policy(report: Report, policy: Any, prompts: list[Any]) -> None:
    render = policy.render if policy.encoder_decoder else None
    check_round_trip(report, policy.tokenizer, "policy", prompts, policy.stop_ids, render)


def check_lengths(
    report: Report, policy: Any, prompts: list[Any], room: int, long_prompts: str
) -> tuple[list[Any], int]:
    """The prompts that leave room for an answer, and the tokens of the longest of all."""
    lengths = [len(policy.prompt_ids(prompt.messages)) for prompt in prompts]
    fitting = [p for p, n in zip(prompts, lengths, strict=True) if policy.fits(n, room)]
    too_long = len(prompts) - len(fitting)
    if too_long:
        refused = long_prompts == "refuse" or not fitting
        report.add(
            "error" if refused else "warning",
            "lengths",
            f"{too_long} of {len(prompts)} prompts leave no room for {room} tokens in the context "
            f"of {policy.context}; "
            + ("shorten them, or set long_prompts." if refused else "they are left out."),
        )
    else:
        report.add(
            "ok",
            "lengths",
            f"Prompts have {min(lengths)} to {max(lengths)} tokens (median "
            f"{statistics.median(lengths):g}); with {room} more they fit into {policy.context}.",
        )
    report.figures["prompts"] = len(prompts)
    report.figures["prompt_tokens"] = {
        "least": min(lengths),
        "median": statistics.median(lengths),
        "most": max(lengths),
    }
    return fitting, max(lengths)


def check_round_trip(
    report: Report,
    tokenizer: Any,
    what: str,
    prompts: list[Any],
    stop_ids: list[int],
    render_for_encoder: Callable[[list[dict[str, str]]], str] | None = None,
) -> None:
    """Check that template and tokenizer reproduce conversations, and that answers end with a stop token.

    `render_for_encoder` is how an encoder-decoder renders a conversation for its encoder.
    """
    from rlhf.training.language_models import conversations

    render = render_for_encoder or functools.partial(conversations.render, tokenizer)
    changed: list[str] = []
    for prompt in prompts[:200]:
        text = render(prompt.messages)  # InputError where a turn is dropped
        ids = conversations.encode(tokenizer, text)
        if tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text:
            changed.append(prompt.prompt_id)
    if changed:
        report.add(
            "warning",
            "tokenizer",
            f"The {what}'s tokenizer changes {len(changed)} of {min(len(prompts), 200)} prompts, "
            f"{changed[0]} first: it has no tokens for some of their characters.",
        )
    else:
        report.add("ok", "tokenizer", f"The {what}'s tokenizer reproduces the prompts exactly.")
    _check_template(
        report, tokenizer, what, prompts, is_encoder_decoder=render_for_encoder is not None
    )
    if stop_ids:
        _check_end(report, tokenizer, what, prompts, stop_ids)


def _check_template(
    report: Report, tokenizer: Any, what: str, prompts: list[Any], *, is_encoder_decoder: bool
) -> None:
    """Check that there is a chat template, and that it puts the BOS token first."""
    from rlhf.training.language_models import conversations

    if not getattr(tokenizer, "chat_template", None):
        turns = (
            "its encoder gets a single turn as plain text, and several turns with their roles."
            if is_encoder_decoder
            else "each turn is rendered as plain text with its role."
        )
        report.add("warning", "template", f"The {what} has no chat template; {turns}")
        return
    bos = tokenizer.bos_token
    if not bos or not prompts or is_encoder_decoder:
        return
    rendered = conversations.render(tokenizer, prompts[0].messages)
    adds_bos = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    if rendered.startswith(bos + bos):
        report.add("warning", "template", f"The {what}'s template begins with {bos} twice.")
    elif adds_bos and not rendered.startswith(bos):
        report.add(
            "warning",
            "template",
            f"The {what} expects {bos} first, and its template does not put it there.",
        )


def _check_end(
    report: Report, tokenizer: Any, what: str, prompts: list[Any], stop_ids: list[int]
) -> None:
    """Check that the template writes an answer as it is sampled, trained and scored."""
    from rlhf.training.language_models import answers

    if getattr(tokenizer, "chat_template", None) and prompts:
        form = answers.form_of(tokenizer)
        if form.difference:
            report.add("warning", "end", form.difference)
        else:
            end = tokenizer.convert_ids_to_tokens(form.end)
            others = [tokenizer.convert_ids_to_tokens(i) for i in stop_ids if i != form.end]
            if form.end != tokenizer.eos_token_id:
                end += f", by the {what}'s template,"
            report.add("ok", "end", f"Answers end with {' or with '.join([end, *others])}.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in stop_ids:
        report.add(
            "ok", "pad", "There is no separate padding token; masks are computed from lengths."
        )


def check_batches(report: Report, n_prompts: int, config: PPOConfig) -> None:
    """Whether prompts, rollouts and minibatches fit together."""
    if n_prompts < config.rollout.prompts_per_step:
        report.add(
            "error",
            "batches",
            f"{n_prompts} prompts are fewer than the {config.rollout.prompts_per_step} of one step; add "
            "prompts or lower rollout.prompts_per_step.",
        )
        return
    passes = config.steps * config.rollout.prompts_per_step / n_prompts
    updates = (
        max(1, round(config.responses_per_step / config.optimizer.minibatch_size))
        * config.optimizer.epochs
    )
    report.figures["passes"] = passes
    report.figures["updates"] = updates * config.steps
    report.add(
        "ok",
        "batches",
        f"{config.steps} steps of {config.responses_per_step} responses, {updates} updates each; "
        f"every prompt is seen {passes:.2g} times.",
    )
    if config.optimizer.minibatch_size < 8 and config.advantage.whiten_rewards:
        report.add("warning", "batches", "Whitening rewards needs minibatches of 8 or more.")
    if config.loss.approx_kl_stop == 0 and config.optimizer.epochs > 4:
        report.add(
            "warning",
            "batches",
            f"With {config.optimizer.epochs} epochs and approx_kl_stop off, the policy may move far "
            "from the one that sampled the responses.",
        )
