"""A model of one's own in every form that people have it in, or one sentence why it can't be read."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from rlhf.training import inspection
from rlhf.training.language_models import adapters, gguf_files
from rlhf.training.language_models.policy import add_lora, load_policy
from rlhf.training.reward_models.model import RewardModel
from rlhf.training.rundir.errors import InputError
from rlhf.training.rundir.process import StopRequest
from tests.rlhf.training.tiny import ask, make_policy, make_t5, result_of, run_folder

CPU = torch.device("cpu")
QUESTION = ask("please paint my red lamp")


def load(name):
    return load_policy(str(name), "policy", device=CPU)


def inspect(folder, name):
    run = run_folder(folder, {"policy": str(name), "max_new_tokens": 4})
    inspection.main(run, StopRequest())
    return result_of(run)


def logits(policy):
    with torch.no_grad():
        return policy.model(input_ids=torch.tensor([policy.prompt_ids(QUESTION)])).logits


@pytest.fixture
def whole(tmp_path):
    return make_policy(tmp_path / "whole")


def shard(folder, tmp_path):
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        tmp_path / "form", max_shard_size="20KB"
    )
    return copy_tokenizer(folder, tmp_path / "form")


def halve(folder, tmp_path):
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "form"
    )
    return copy_tokenizer(folder, tmp_path / "form")


def copy_tokenizer(source, folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((source / name).read_bytes())
    return folder


@pytest.mark.parametrize(("change", "precision"), [(shard, "float32"), (halve, "bfloat16")])
def test_shards_and_bfloat16_are_read_into_float32_where_they_lie(
    whole, tmp_path, change, precision
):
    folder = change(whole, tmp_path)
    policy = load(folder)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert torch.allclose(logits(policy), logits(load(whole)), atol=0.01)
    result = inspect(tmp_path / "run", folder)
    assert (result["source"], result["converted"], result["precision"]) == (
        "folder",
        False,
        precision,
    )
    assert result["n_files"] == len(list(folder.glob("*.safetensors"))) > (change is shard)
    assert any("read into float32" in remark for remark in result["remarks"]) == (change is halve)


def adapt(whole, folder, *, base=None, task="CAUSAL_LM"):
    """Adapters that change what the model computes."""
    policy = load(whole)
    add_lora(policy, rank=2, alpha=4)
    torch.manual_seed(0)
    for name, parameter in policy.model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    policy.model.save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": str(base or whole), "task_type": task}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return policy


def test_adapters_become_a_whole_model_for_policy_and_reward_model(whole, tmp_path):
    adapted = logits(adapt(whole, tmp_path / "adapters"))
    assert not torch.allclose(adapted, logits(load(whole)), atol=1e-2)
    assert torch.allclose(logits(load(tmp_path / "adapters")), adapted, atol=1e-4)
    scorer = RewardModel.new(
        str(tmp_path / "adapters"), ["helpfulness"], use_prior=True, max_length=64, device="cpu"
    )
    assert torch.isfinite(scorer.score([QUESTION], ["nice"])["helpfulness"]).all()

    result = inspect(tmp_path / "run", tmp_path / "adapters")
    assert (result["source"], result["base"], result["converted"]) == ("adapters", str(whole), True)
    assert torch.allclose(logits(load(tmp_path / "run" / "policy")), adapted, atol=1e-4)


def test_adapters_that_no_merged_model_can_equal_are_refused(whole, tmp_path):
    from peft import LoraConfig, get_peft_model

    model = AutoModelForCausalLM.from_pretrained(whole)
    settings = LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM")
    model = get_peft_model(model, settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(tmp_path / "adapters")
    with pytest.raises(InputError, match="the merged model computes something else"):
        load(tmp_path / "adapters")


def test_adapters_of_another_task_or_without_a_base_are_refused_by_name(whole, tmp_path):
    adapt(whole, tmp_path / "classifier", task="SEQ_CLS")
    with pytest.raises(InputError, match="were trained for SEQ_CLS"):
        load(tmp_path / "classifier")
    adapt(whole, tmp_path / "lost", base=tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"base of the policy folder .*nowhere' does not exist"):
        load(tmp_path / "lost")


# --- GGUF ---------------------------------------------------------------------------------------


def write_gguf(path, *, template="{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"):
    """A random Llama in llama.cpp's format, quantized to Q8_0, whose tokens are bytes."""
    from gguf import GGMLQuantizationType, GGUFWriter, quants

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|pad|>", "<|end|>", *alphabet, "re", "ed"]
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(96)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3] + [1] * (len(tokens) - 2))
    writer.add_token_merges(["r e", "e d"])
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_chat_template(template)
    draw = np.random.default_rng(0)
    shapes = {
        "token_embd.weight": (len(tokens), 64),
        "output.weight": (len(tokens), 64),
        "output_norm.weight": (64,),
        "blk.0.attn_norm.weight": (64,),
        "blk.0.ffn_norm.weight": (64,),
        "blk.0.attn_q.weight": (64, 64),
        "blk.0.attn_k.weight": (32, 64),
        "blk.0.attn_v.weight": (32, 64),
        "blk.0.attn_output.weight": (64, 64),
        "blk.0.ffn_gate.weight": (64, 64),
        "blk.0.ffn_up.weight": (64, 64),
        "blk.0.ffn_down.weight": (64, 64),
    }
    for name, shape in shapes.items():
        values = draw.normal(size=shape).astype(np.float32) * 0.1
        if len(shape) == 1:
            writer.add_tensor(name, values + 1)
        else:
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_becomes_a_folder_that_can_be_trained_saved_and_scored_with(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf")
    policy = load(file)
    assert {p.dtype for p in policy.model.parameters()} == {torch.float32}
    assert policy.context == 96
    policy.model.save_pretrained(tmp_path / "saved")  # transformers refuses what is quantized
    scorer = RewardModel.new(
        str(file), ["helpfulness"], use_prior=True, max_length=64, device="cpu"
    )
    assert torch.isfinite(scorer.score([QUESTION], ["nice"])["helpfulness"]).all()

    result = inspect(tmp_path / "run", file)
    assert (result["source"], result["precision"], result["converted"]) == ("gguf", "Q8_0", True)
    assert result["tokens"]["stop"] == ["<|end|>"]
    assert result["template"]["prompt"] == f"{inspection.EXAMPLE[0]['content']}<|end|>"
    again = load(tmp_path / "run" / "policy")
    assert torch.equal(logits(again), logits(policy))
    assert again.render(QUESTION) == policy.render(QUESTION)


def test_without_the_package_gguf_it_says_how_to_get_it(tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(32))
    monkeypatch.setattr(gguf_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'ground-control\[gguf\]'"):
        load(tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.gguf", b"PK\x03\x04", "not a GGUF file, although"),
        ("model.gguf", b"GGUF" + bytes(32), "can't be read"),
        ("model.safetensors", b"", "a single file that is not GGUF"),
        ("folder/model.gguf", b"GGUF", "name that file itself"),
    ],
)
def test_another_file_is_refused_in_one_sentence(tmp_path, name, content, reason):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        load(path if path.parent == tmp_path else path.parent)
    with pytest.raises(InputError, match=r"missing\.gguf' does not exist"):
        load(tmp_path / "missing.gguf")


# --- What is said before the launch --------------------------------------------------------------


def test_the_inspection_says_what_it_understood(whole, tmp_path):
    result = inspect(tmp_path / "run", whole)
    assert result["architecture"] == "LlamaForCausalLM"
    assert result["n_parameters"] == sum(
        t.numel() for t in load_file(whole / "model.safetensors").values()
    )
    assert result["context"] == 128
    assert result["memory"]["float32"] == 4 * result["n_parameters"] < result["memory"]["peak"]
    assert result["bytes"] == (whole / "model.safetensors").stat().st_size
    assert result["tokens"] == {
        "bos": None, "eos": "<|end|>", "pad": "<|pad|>", "stop": ["<|end|>"], "end": "<|end|>",
    }  # fmt: skip
    assert result["template"]["prompt"].endswith("week?<|end|><|assistant|>")
    assert (result["remarks"], result["refusals"], result["converted"]) == ([], [], False)
    assert not (tmp_path / "run" / "policy").exists()


def test_what_can_not_work_later_is_refused_here(whole, tmp_path):
    assert not inspect(tmp_path / "t5", make_t5(tmp_path / "a"))["refusals"]
    (reason,) = inspect(tmp_path / "bart", make_t5(tmp_path / "b", kind="bart"))["refusals"]
    assert "only T5's encoder can become the reward model" in reason
    weights = load_file(whole / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, whole / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="holds NaN"):
        inspect(tmp_path / "run", whole)


def test_a_folder_of_adapters_is_told_from_a_whole_model(whole, tmp_path):
    adapt(whole, tmp_path / "adapters")
    assert adapters.is_adapter_folder(str(tmp_path / "adapters"))
    assert not adapters.is_adapter_folder(str(whole))
