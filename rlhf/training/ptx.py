"""PPO-ptx: the likelihood of texts as an additional objective of the policy.

Ouyang et al. (2022, "InstructGPT", section 3.5) add the gradient of the log-likelihood of
pretraining data to PPO's, because no KL penalty prevents the loss of other abilities (their
"alignment tax"). Here the data is `data/ptx.jsonl`: demonstrations, or texts like those of the
pretraining.
"""

from dataclasses import dataclass
from pathlib import Path

from rlhf.training.data import read_ptx
from rlhf.training.language_models import conversations
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir.errors import InputError


@dataclass(frozen=True)
class Example:
    """Tokens of the context, and the tokens after it, on which the loss is computed."""

    prompt: list[int]
    response: list[int]


def read_examples(run_dir: Path, policy: Policy, long_prompts: str) -> list[Example]:
    """The examples of `data/ptx.jsonl` as the policy's tokens.

    A demonstration is its prompt and the response with its end, as in `sft`. A text counts from its
    second token (with a token that begins texts: from its first) up to the context length, and
    without an end, because it may be an excerpt. `long_prompts` as in `Policy.fitting`.
    `InputError` if no example is left.
    """
    examples = []
    for number, (prompt, text) in enumerate(read_ptx(run_dir), start=1):
        if prompt is None:
            examples.append(_text(policy, text, f"data/ptx.jsonl line {number}"))
            continue
        response = policy.encode_response(text)
        ids = policy.encode_unless_left_out(prompt, room=len(response), long_prompts=long_prompts)
        if ids is not None:
            examples.append(Example(ids, response))
    if not examples:
        raise InputError("No line of data/ptx.jsonl fits the model's context; shorten them.")
    return examples


def _text(policy: Policy, text: str, where: str) -> Example:
    if policy.encoder_decoder:
        raise InputError(
            f"{where} is a text without messages, and an encoder-decoder needs something for its "
            "encoder; give messages and a response."
        )
    begin = policy.tokenizer.bos_token_id
    ids = [*([] if begin is None else [begin]), *conversations.encode(policy.tokenizer, text)]
    if len(ids) < 2:
        raise InputError(f"{where} is a single token without a following one; leave it out.")
    return Example(ids[:1], ids[1 : policy.context])
