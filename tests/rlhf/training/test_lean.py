"""A stage's process leaves out what it never calls, and gets it all the same when it asks."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rlhf.training.test_reward_options import opinions
from tests.rlhf.training.tiny import ROOT, prompt, run_folder

NEVER = {
    "accelerate",
    "datasets",
    "django",
    "pandas",
    "peft",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo.convert_frame",  # torch's compiler, of which a part is read
    "torch._inductor",
    "torch._refs",  # of the meta device
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.tensor.placement_types",
    "trl",
}


@pytest.fixture
def folder_of(ready, talker, taste, tmp_path):
    def make(stage):
        if stage == "ppo":
            return ready(steps=1)
        if stage == "base":
            texts = [
                {"messages": prompt(i)["messages"], "response": "nice red lamp"} for i in range(8)
            ]
            small = {"layers": 1, "hidden_size": 64, "intermediate_size": 64, "threads": 1}
            steps = {"clean_steps": 1, "mix_steps": 1, "batch_size": 4}
            corpus = [text | {"phase": phase} for text in texts for phase in ("clean", "mix")]
            return run_folder(tmp_path / stage, small | steps, corpus=corpus)
        if stage == "reward_model":
            rows, reference = opinions()
            config = {"trunk": talker, "epochs": 1, "threads": 1}
            return run_folder(tmp_path / stage, config, preferences=rows, reference=reference)
        config = {"policy": talker, "max_new_tokens": 4, "threads": 1}
        if stage != "generate":
            config["reward_model"] = str(taste / "train")
        if stage == "best_of_n":
            config["n"] = [1, 2]
        return run_folder(tmp_path / stage, config, prompts=[prompt(i) for i in range(4)])

    return make


def imported_by(stage, folder):
    """The names of all modules that the stage's process imported."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", f"rlhf.training.{stage}", str(folder)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize(
    "stage", ["base", "generate", "reward_model", "ppo", "evaluate", "best_of_n"]
)
def test_a_stage_imports_no_compiler_no_cluster_and_no_statistics(stage, folder_of):
    imported = imported_by(stage, folder_of(stage))
    assert {"torch", "transformers.modeling_utils"} <= imported
    assert not imported & NEVER


def test_adapters_are_trained_and_saved_by_a_process_that_imported_little(ready):
    folder = ready(steps=1, lora_rank=2)
    assert "peft" in imported_by("ppo", folder)
    assert (folder / "policy" / "model.safetensors").exists()


ASKED = """
import sys
sys.argv, sys.orig_argv = ["-m"], ["python", "-m", "rlhf.training.ppo"]  # a stage's own process
from rlhf.training import lean
lean.import_little()
import torch
from transformers import LlamaForCausalLM
weight = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.AdamW([weight], lr=0.5, weight_decay=0.0)
weight.sum().backward()
optimizer.step()
assert torch.rand(2, generator=torch.Generator().manual_seed(3)).shape == (2,)
assert "torch._dynamo.convert_frame" not in sys.modules
assert "torch._prims" not in sys.modules
print([round(w, 3) for w in weight.tolist()])
print(torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).tolist())
assert torch.roll(torch.ones(2, device="meta"), 1).shape == (2,)
assert torch._dynamo.convert_frame is sys.modules["torch._dynamo.convert_frame"]
import accelerate, scipy.optimize
from torch.distributed.fsdp import fully_shard
assert torch.distributed.is_available()
print("all there")
"""


def test_what_is_left_out_comes_when_it_is_asked_for():
    done = subprocess.run(
        [sys.executable, "-c", ASKED], cwd=ROOT, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[0.5, 0.5]", "[2.0, 2.0]", "all there"]


def test_a_model_that_does_more_on_the_meta_device_is_read_all_the_same(ready, talker, tmp_path):
    """Llama 3's positions are chosen with torch.where, which C++ alone does not know there."""
    policy = Path(shutil.copytree(talker, tmp_path / "llama3"))
    config = json.loads((policy / "config.json").read_text())
    config["rope_parameters"] = {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    (policy / "config.json").write_text(json.dumps(config))
    folder = ready(steps=1, policy=str(policy), reference=str(policy))
    assert "torch._refs" in imported_by("ppo", folder)
    assert (folder / "policy" / "model.safetensors").exists()
