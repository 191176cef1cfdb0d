"""Read a model of one's own and say what was understood: `python -m rlhf.training.inspection RUN_DIR`.

A GGUF file and a folder of adapters become a folder of float32 safetensors, `RUN_DIR/policy/`, which
every stage, server and export can read. Other models stay where they are.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from rlhf.training import architecture, decoding, sampling
from rlhf.training.configs import InspectionConfig
from rlhf.training.data import Message
from rlhf.training.language_models import conversations, weight_files
from rlhf.training.language_models.policy import Policy, load_policy
from rlhf.training.rundir import CONFIG, POLICY
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.files import replace_folder
from rlhf.training.rundir.process import StopRequest, run_stage
from rlhf.training.rundir.reports import write_progress, write_result
from rlhf.training.settings import load

EXAMPLE: list[Message] = [{"role": "user", "content": "How do I keep basil fresh for a week?"}]
SYSTEM: Message = {"role": "system", "content": "Answer in one sentence."}

ENDLESS = 1 << 30
"""The context of a model whose configuration names none (`pretrained.context_length`)."""


def main(run_dir: Path, stop: StopRequest) -> None:
    began = time.monotonic()

    # 1. The model, by the function that every stage loads it with.
    config = load(InspectionConfig, run_dir / CONFIG)
    if config.threads:
        torch.set_num_threads(config.threads)
    write_progress(run_dir, done=0, total=3, unit="steps", note="reading the weights")
    policy = load_policy(config.policy, "model", device=torch.device("cpu"))

    # 2. What it computes: a sample answer, and the way its tokens are drawn.
    write_progress(run_dir, done=1, total=3, unit="steps", note="answering an example")
    sample = _sample(policy, config.max_new_tokens, config.seed) if config.max_new_tokens else ""

    # 3. What no other program could read becomes a folder.
    write_progress(run_dir, done=2, total=3, unit="steps", note="describing it")
    files = weight_files.describe(config.policy)
    if converted := files["source"] in ("gguf", "adapters"):

        def write(folder: Path) -> None:
            policy.model.save_pretrained(folder)
            policy.tokenizer.save_pretrained(folder)

        replace_folder(run_dir / POLICY, write)
    template = _template(policy)
    write_result(
        run_dir,
        {
            **files,
            "converted": converted,
            **_model(policy),
            "tokens": _tokens(policy),
            "template": template,
            "sample": {"question": EXAMPLE[0]["content"], "answer": sample},
            "memory": {
                "float32": 4 * sum(p.numel() for p in policy.model.parameters()),
                "peak": _peak_memory(),
            },
            "remarks": _remarks(policy, files, template),
            "refusals": _refusals(policy),
            "seconds": time.monotonic() - began,
        },
    )


def _sample(policy: Policy, max_new_tokens: int, seed: int) -> str:
    """The beginning of an answer to EXAMPLE, drawn at a low temperature."""
    sampled = sampling.sample(
        policy.model,
        [policy.encode_prompt(EXAMPLE, "of the example", room=max_new_tokens)],
        k=1,
        max_new_tokens=max_new_tokens,
        temperature=0.3,
        stop_ids=policy.stop_ids,
        pad_id=policy.pad_id,
        generator=torch.Generator().manual_seed(seed),
    )
    return policy.decode(sampled[0][0].tokens)


def _model(policy: Policy) -> dict[str, Any]:
    inside = architecture.unwrap_model(policy.model)
    return {
        "architecture": type(inside).__name__,
        "model_type": str(inside.config.model_type),
        "n_parameters": sum(p.numel() for p in inside.parameters()),
        "vocabulary": inside.get_input_embeddings().num_embeddings,
        "context": None if policy.context >= ENDLESS - 1 else policy.context,
        "encoder_decoder": policy.encoder_decoder,
    }


def _tokens(policy: Policy) -> dict[str, Any]:
    """The special tokens as texts; `end` is the one that ends an answer in training and scoring."""
    tokenizer = policy.tokenizer
    end = policy.stop_ids[0] if policy.form.end is None else policy.form.end
    return {
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "pad": tokenizer.pad_token,
        "stop": [tokenizer.convert_ids_to_tokens(token) for token in policy.stop_ids],
        "end": tokenizer.convert_ids_to_tokens(end),
    }


def _template(policy: Policy) -> dict[str, Any]:
    """EXAMPLE as the model reads it, and what becomes of a system turn."""
    has_template = bool(getattr(policy.tokenizer, "chat_template", None))
    alone = policy.render(EXAMPLE)
    try:
        policy.render([SYSTEM, *EXAMPLE])
        system = ""
    except InputError as error:
        system = str(error)
    return {
        "chat_template": has_template,
        "prompt": alone,
        "lead": policy.form.lead,
        "after": policy.form.after,
        "difference": policy.form.difference,
        "no_system": system,
        "own_system": has_template and "system" in alone.partition(EXAMPLE[0]["content"])[0],
        "writes_date": conversations.writes_date(policy.tokenizer),
    }


def _remarks(policy: Policy, files: dict[str, Any], template: dict[str, Any]) -> list[str]:
    """What a person should know before the launch, one sentence each."""
    remarks = []
    precision = files["precision"]
    if files["source"] == "gguf":
        remarks.append(
            f"Its weights are stored as {precision}; they were turned into float32 and written as "
            "safetensors. What quantization has lost does not come back."
        )
    elif files["source"] == "adapters":
        remarks.append(f"The adapters were merged into {files['base']} and written as safetensors.")
    elif precision in ("bfloat16", "float16"):
        remarks.append(
            f"Its weights are stored as {precision}; on a CPU they are read into float32."
        )
    if not template["chat_template"]:
        remarks.append(
            "It has no chat template: turns are written with their roles, as below. A model that was "
            "never trained on conversations answers such prompts poorly."
        )
    if template["no_system"]:
        remarks.append(f"Prompts with a system turn stop a stage: {template['no_system']}")
    if template["difference"]:
        remarks.append(template["difference"])
    if template["writes_date"]:
        date = conversations.TEMPLATES_DATE
        remarks.append(
            f"Its chat template writes a date. Stages always write {date:%d %B %Y}, so that a prompt "
            "is the same text every day; servers write today's."
        )
    pad = policy.tokenizer.pad_token_id
    if pad is None or pad in policy.stop_ids:
        remarks.append(
            "It has no padding token of its own. Nothing here depends on it: masks come from lengths."
        )
    if not policy.encoder_decoder and _rereads(policy):
        remarks.append(
            "It computes other log-probabilities with its key-value cache than without, so every "
            "token reads its whole sequence: long answers are slow."
        )
    return remarks


def _rereads(policy: Policy) -> bool:
    return decoding.agreeing_decoder(policy.model) is decoding.RereadingDecoder


def _refusals(policy: Policy) -> list[str]:
    """Why a round can't be launched with it, one sentence each."""
    kind = architecture.unwrap_model(policy.model).config.model_type
    if not policy.encoder_decoder or kind in architecture.T5_TYPES:
        return []
    reason = (
        f"It is an encoder-decoder ({kind}), of which only T5's encoder can become the reward "
        "model; name a decoder-only model or a T5."
    )
    return [reason]


def _peak_memory() -> int:
    """The most memory that this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    run_stage(main)
