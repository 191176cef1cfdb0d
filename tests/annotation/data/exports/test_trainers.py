"""TRL's own trainers take the forms as they are: opened by `load_dataset`, one step of training.

The rows that training sees are the last of more than 30,000, which are unlike all before.
"""

import pytest

from annotation.data.exports.forms import FORMS
from annotation.data.exports.output import Output
from tests.annotation.data.exports.frozen_files import MARGIN, ODD, frozen_files
from tests.annotation.data.exports.tiny_llama import once, tiny_llama

pytest.importorskip("trl")


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """opened(form, file): the last 16 rows of the form as `load_dataset` reads them."""
    from datasets import load_dataset

    place = tmp_path_factory.mktemp("late")
    frozen = frozen_files(place / "frozen")
    reads = {"pairs": "pairs-helpfulness", "demonstrations": "demonstrations"}

    def open_form(key):
        form = FORMS[key]
        folder = place / key
        folder.mkdir()
        output = Output(folder)
        form.write(frozen, reads.get(form.reads, "preferences"), output)
        [name] = output.rows
        kind = "parquet" if name.endswith("parquet") else "json"
        rows = load_dataset(
            kind, data_files=str(folder / name), split="train", cache_dir=str(place / "cache")
        )
        assert len(rows) == output.rows[name]
        return rows.select(range(max(0, len(rows) - 16), len(rows)))

    return open_form


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from transformers import LlamaForCausalLM

    tokenizer, config = tiny_llama()
    folder = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder), tokenizer


def trained(trainer):
    trainer.train()
    assert trainer.state.global_step == 1
    loss = trainer.state.log_history[0]["loss"]
    assert loss > 0
    return loss


def test_trls_reward_trainer_and_dpo_trainer_take_the_pairs(opened, model, tmp_path):
    from transformers import LlamaForSequenceClassification
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

    folder, tokenizer = model
    rows = opened("trl")
    assert rows[3]["margin"] == MARGIN  # to the last bit
    assert rows[3]["chosen"][0]["content"] == "2026-11-30"
    scorer = LlamaForSequenceClassification.from_pretrained(folder, num_labels=1)
    trained(
        RewardTrainer(
            model=scorer,
            args=RewardConfig(**once(tmp_path)),
            train_dataset=rows,
            processing_class=tokenizer,
        )
    )
    dpo = DPOTrainer(
        model=folder,
        args=DPOConfig(**once(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    assert trained(dpo) == pytest.approx(0.6931, abs=1e-3)


def test_trls_kto_trainer_takes_the_labels(opened, model, tmp_path):
    from trl import KTOConfig, KTOTrainer

    folder, tokenizer = model
    rows = opened("kto")
    assert set(rows["label"]) == {True, False}
    trained(
        KTOTrainer(
            model=folder,
            args=KTOConfig(**once(tmp_path)),
            train_dataset=rows,
            processing_class=tokenizer,
        )
    )


@pytest.mark.parametrize("key", ["sft", "sft-best"])
def test_trls_sft_trainer_learns_the_answer_alone(opened, model, tmp_path, key):
    from trl import SFTConfig, SFTTrainer

    folder, tokenizer = model
    rows = opened(key)
    assert ODD[0] in [row["completion"][0]["content"] for row in rows] or key == "sft-best"
    trainer = SFTTrainer(
        model=folder,
        args=SFTConfig(**once(tmp_path)),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))
    learned = tokenizer.decode(batch["labels"][0][batch["labels"][0] >= 0])
    assert "<user>" not in learned
    trained(trainer)
