"""PPO-ptx: what the policy is to go on finding likely while it climbs a reward.

Ouyang et al. (2022, "InstructGPT", section 3.5) add the gradient of the log-likelihood of pretraining
data to PPO's, because what RLHF takes away elsewhere (their "alignment tax") no KL penalty gives
back. Here the data is `data/ptx.jsonl`: demonstrations, or texts like those of the pretraining.
"""

from dataclasses import dataclass
from pathlib import Path

from rlhf.training.data import read_ptx
from rlhf.training.language_models import conversations
from rlhf.training.language_models.policy import Policy
from rlhf.training.rundir.errors import InputError


@dataclass(frozen=True)
class Example:
    """Tokens that are read, and those after them whose likelihood counts."""

    prompt: list[int]
    response: list[int]


def read(run_dir: Path, policy: Policy, long_prompts: str) -> list[Example]:
    """The examples of `data/ptx.jsonl` as the policy's tokens.

    A demonstration is its prompt and the response with its end, as `sft` teaches it. A text counts
    from its second token (its first, behind the token that begins a text, where there is one) to as
    far as the context goes, and teaches no end: it may be a part of something. `long_prompts` as in
    `Policy.fitting`. `InputError` where nothing is left.
    """
    found = []
    for number, (prompt, text) in enumerate(read_ptx(run_dir), start=1):
        if prompt is None:
            found.append(_text(policy, text, f"data/ptx.jsonl line {number}"))
            continue
        response = policy.encode_response(text)
        ids = policy.encode_unless_left_out(prompt, room=len(response), long_prompts=long_prompts)
        if ids is not None:
            found.append(Example(ids, response))
    if not found:
        raise InputError("No line of data/ptx.jsonl fits the model's context; shorten them.")
    return found


def _text(policy: Policy, text: str, where: str) -> Example:
    if policy.encoder_decoder:
        raise InputError(
            f"{where} is a text without messages, and an encoder-decoder needs something for its "
            "encoder; give messages and a response."
        )
    begin = policy.tokenizer.bos_token_id
    ids = [*([] if begin is None else [begin]), *conversations.encode(policy.tokenizer, text)]
    if len(ids) < 2:
        raise InputError(f"{where} is a single token, of which nothing follows; leave it out.")
    return Example(ids[:1], ids[1 : policy.context])
