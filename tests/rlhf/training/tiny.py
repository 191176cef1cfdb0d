"""Tiny models and run folders for the tests of the training stages: made on the spot, never
downloaded."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.rlhf.training import warm

ROOT = Path(__file__).resolve().parents[3]

WORDS = [
    "red",
    "blue",
    "green",
    "lamp",
    "chair",
    "kettle",
    "please",
    "paint",
    "sell",
    "burn",
    "my",
    "your",
    "yes",
    "no",
    "sorry",
    "nice",
]


def make_policy(
    folder: Path, *, seed: int = 0, hidden: int = 32, layers: int = 2, context: int = 128
) -> Path:
    """A random Llama with a tokenizer of a few words."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from rlhf.training.word_tokenizer import build_tokenizer

    tokenizer = build_tokenizer([" ".join(WORDS), *WORDS], max_length=context)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    # A random policy is nearly uniform over the bytes too: make words and the end likelier.
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_t5(folder: Path, *, seed: int = 0, hidden: int = 32, kind: str = "t5") -> Path:
    """A random encoder-decoder with the same words and, as T5 has it, no chat template and an end
    token behind whatever its tokenizer reads."""
    import torch
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoModelForSeq2SeqLM, BartConfig, T5Config

    from rlhf.training.word_tokenizer import END, build_tokenizer

    tokenizer = build_tokenizer([" ".join(WORDS), *WORDS], max_length=128)
    tokenizer.chat_template = None
    end = (END, tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {END}", special_tokens=[end]
    )
    torch.manual_seed(seed)
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "decoder_start_token_id": tokenizer.pad_token_id,
    }
    shape: dict[str, int] = {"num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
    config = T5Config(d_model=hidden, d_kv=hidden // 4, d_ff=2 * hidden, **shape, **ids)
    if kind == "bart":
        shape = {
            f"{side}_{name}": number
            for side in ("encoder", "decoder")
            for name, number in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 2 * hidden))
        }
        positions = {"max_position_embeddings": 64, "bos_token_id": None}
        config = BartConfig(d_model=hidden, **shape, **positions, **ids)
    model = AutoModelForSeq2SeqLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def prompt(number: int, *, risk: str = "harmless") -> dict[str, Any]:
    colour, thing = WORDS[number % 3], WORDS[3 + number % 3]
    return {
        "prompt_id": f"p{number}",
        "messages": ask(f"please paint my {colour} {thing}" + " nice" * (number % 5)),
        "category": "how",
        "risk": risk,
    }


def judgment(
    number: int,
    responses: list[str],
    ranks: dict[str, list[int | None]],
    *,
    annotator: str = "ada",
    risk: str = "harmless",
) -> dict[str, Any]:
    return {
        "judgment_id": f"j{number}-{annotator}",
        "annotator": annotator,
        "round": 1,
        "responses": responses,
        "ranks": ranks,
        "weight": 1.0,
        **prompt(number, risk=risk),
    }


def run_folder(folder: Path, config: dict[str, Any], **data: list[dict[str, Any]]) -> Path:
    """A run folder as the web side writes it; `opponents__base` is data/opponents/base.jsonl."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, rows in data.items():
        path = folder / "data" / (name.replace("__", "/") + ".jsonl")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def start(stage: str, folder: Path) -> warm.Stage:
    """The stage in a process of its own, on one thread."""
    return warm.Stage(stage, folder)


def run(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a stage to its end."""
    process = start(stage, folder)
    out, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.wait(), out, err)


def run_together(folder: Path, *, processes: int = 2, stage: str = "ppo") -> None:
    """Run a stage in several processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "tiny"}
    started = [
        warm.Stage(stage, folder, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        for rank in range(processes)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors


def run_command(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as the worker starts it, with all its imports, to its end."""
    return subprocess.run(
        [sys.executable, "-m", f"rlhf.training.{stage}", str(folder)],
        cwd=ROOT,
        env=os.environ | warm.ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,  # where processor time counts, others may slow it
        check=False,
    )


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def result_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def notes_of(monkeypatch: Any, call: Any) -> set[str]:
    """The names of all phases that a stage shows while it runs, if time did not thin them out."""
    from rlhf.training.rundir import reports

    notes: set[str] = set()
    monkeypatch.setattr(reports.Progress, "EVERY", 0.0)
    monkeypatch.setattr(reports.Progress, "LEAST", 0.0)
    write = reports.write_progress

    def noting(run_dir: Path, **progress: Any) -> None:
        notes.add(progress.get("note", "").partition(": ")[0])
        write(run_dir, **progress)

    monkeypatch.setattr(reports, "write_progress", noting)
    call()
    return notes
