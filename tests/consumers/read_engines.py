"""Reads our files by the data code of OpenRLHF and verl, from their unpacked wheels. Prints JSON.

    python read_engines.py OPENRLHF VERL FORMS TOKENIZER

The engines themselves need GPUs. Only what their data modules import and do not use here is replaced.
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from datasets import load_dataset
from transformers import AutoTokenizer


def stand_in(name, **members):
    module = ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


openrlhf, verl, forms, tokenizer = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(tokenizer)
openrlhf = next(Path(openrlhf).rglob("openrlhf/datasets"))
for package in ("openrlhf", "openrlhf.datasets", "openrlhf.utils"):
    stand_in(package)
stand_in("openrlhf.utils.utils", zero_pad_sequences=None)
sys.modules["openrlhf.datasets.utils"] = load(openrlhf / "utils.py", "openrlhf.datasets.utils")
reward = load(openrlhf / "reward_dataset.py", "reward_dataset")
prompts = load(openrlhf / "prompts_dataset.py", "prompts_dataset")


def rows_of(form, kind, file):
    return load_dataset(kind, data_files=f"{forms}/{form}/{file}", split="train")


def strategy(**data):
    return SimpleNamespace(
        args=SimpleNamespace(data=SimpleNamespace(**data)), is_rank_0=lambda: False
    )


pairs = rows_of("openrlhf", "json", "train.jsonl")
last = pairs.select(range(len(pairs) - 14, len(pairs)))
keys = {"prompt_key": None, "chosen_key": "chosen", "rejected_key": "rejected"}
learned = reward.RewardDataset(
    last, tokenizer, 256, strategy(**keys, apply_chat_template=True), num_processors=1
)
asked = prompts.PromptDataset(
    rows_of("openrlhf-prompts", "json", "prompts.jsonl"),
    tokenizer,
    strategy(input_key="input", label_key="label", apply_chat_template=True),
)

stand_in("PIL", Image=SimpleNamespace(Image=None))
stand_in("omegaconf", DictConfig=dict, ListConfig=list)
for package in ("verl", "verl.utils"):
    stand_in(package)
stand_in("verl.utils.import_utils", load_extern_object=None)
stand_in("verl.utils.fs", copy_to_local=lambda src, **rest: src)
stand_in(
    "verl.utils.tokenizer",
    build_multimodal_processor_inputs=None,
    normalize_token_ids=lambda ids: ids if isinstance(ids, list) else ids["input_ids"],
)
data = load(next(Path(verl).rglob("utils/dataset/rl_dataset.py")), "rl_dataset")
config = {"max_prompt_length": 256, "filter_overlong_prompts": True, "prompt_key": "prompt"}
rollouts = data.RLHFDataset(f"{forms}/verl-prompts/prompts.parquet", tokenizer, config)
row = rollouts[len(rollouts) - 1]
print(
    json.dumps(
        {
            "pairs": len(pairs),
            "chosen": learned.chosens[0],
            "rejected": learned.rejects[0],
            "margin": list(learned.extras),
            "prompts": len(asked),
            "last_prompt": asked[len(asked) - 1][1:],
            "verl": len(rollouts),
            "verl_last": [row["raw_prompt"], row["index"], row["reward_model"], row["data_source"]],
        }
    )
)
