"""Every form in which a frozen version can be had: one table, one row a form."""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from annotation.data.exports import (
    engine_forms,
    heldout_forms,
    pair_forms,
    ranking_forms,
    tool_forms,
)
from annotation.data.exports.croissant import croissant
from annotation.data.exports.frozen import Frozen
from annotation.data.exports.output import Output
from annotation.data.exports.spreadsheets import csv_chunks
from annotation.data.exports.zips import zip_of

Reads = Literal["pairs", "preferences", "safety votes", "demonstrations", "heldout", "everything"]
CSV_COLUMNS = ("prompt", "chosen", "rejected", "prompt_id", "annotator", "weight")


def spreadsheet(frozen: Frozen, pairs: str, output: Output) -> None:
    """Pairs as CSV, with formulas escaped."""

    def rows() -> Iterator[dict[str, object]]:
        for row in frozen.rows(pairs, CSV_COLUMNS):
            output.count("pairs.csv")
            yield row

    with (output.folder / "pairs.csv").open(
        "w", encoding="utf-8", errors="replace", newline=""
    ) as file:
        file.writelines(csv_chunks(rows(), CSV_COLUMNS))


def archive(frozen: Frozen, _: str, output: Output) -> None:
    """The version as it was frozen, in one zip: a folder that `load_dataset` opens."""
    files, paths = frozen.facts["files"], frozen.facts["paths"]
    with (output.folder / "archive.zip").open("wb") as file:
        for chunk in zip_of(paths, frozen.facts["created_at"]):
            file.write(chunk)
    output.count("archive.zip", sum(file["rows"] or 0 for file in files))


class Form(NamedTuple):
    """One form: what it is made of and for, and the function that writes its files."""

    title: str
    purpose: str
    reads: Reads
    """The frozen file that it is made of; its judgments need something of that kind."""
    write: Callable[[Frozen, str, Output], None]
    """Given the version, the name of the file it reads, and where to write."""
    by_axis: bool = True
    revision: int = 1
    """Counts changes of what is written: files made by an earlier revision are made again."""


ARCHIVE = "archive"
FORMS: dict[str, Form] = {
    ARCHIVE: Form(
        "Everything",
        "datasets.load_dataset, pandas, polars, DuckDB: the version as it was frozen, in one zip.",
        "everything",
        archive,
        by_axis=False,
    ),
    "trl": Form(
        "TRL preferences",
        "RewardTrainer and DPOTrainer of TRL: prompt, chosen, rejected as messages.",
        "pairs",
        pair_forms.trl_preference,
    ),
    "kto": Form(
        "TRL unpaired",
        "KTOTrainer of TRL: one response with the label true (best) or false (worst).",
        "preferences",
        ranking_forms.unpaired,
    ),
    "sft-best": Form(
        "Best responses",
        "SFTTrainer of TRL: each prompt with its best response.",
        "preferences",
        ranking_forms.sft_best,
    ),
    "sft": Form(
        "Demonstrations",
        "SFTTrainer of TRL: each prompt with what a person wrote.",
        "demonstrations",
        ranking_forms.sft_demonstrations,
        by_axis=False,
    ),
    "groups": Form(
        "Rankings of K",
        "Listwise losses: all ranked responses to a prompt in one row, the best first.",
        "preferences",
        ranking_forms.groups,
    ),
    "hh": Form(
        "HH transcripts",
        "Code written for hh-rlhf: chosen and rejected as Human/Assistant transcripts.",
        "pairs",
        pair_forms.hh_transcripts,
    ),
    "safe-rlhf": Form(
        "PKU-SafeRLHF columns",
        "Code written for PKU-SafeRLHF: the better and the safer of two, and both votes.",
        "safety votes",
        ranking_forms.safe_rlhf,
        by_axis=False,
    ),
    "openrlhf": Form(
        "OpenRLHF preferences",
        "train_rm and train_dpo of OpenRLHF, with --data.apply_chat_template.",
        "pairs",
        pair_forms.openrlhf_preference,
    ),
    "openrlhf-prompts": Form(
        "OpenRLHF prompts",
        "train_ppo_ray of OpenRLHF: --data.input_key input, --data.label_key label.",
        "preferences",
        engine_forms.openrlhf_prompts,
        by_axis=False,
    ),
    "verl-prompts": Form(
        "verl prompts",
        "data.train_files of verl.",
        "preferences",
        engine_forms.verl_prompts,
        by_axis=False,
    ),
    "label-studio": Form(
        "Label Studio tasks",
        "Import in Label Studio: pairwise tasks with their votes, and the labeling configuration.",
        "preferences",
        tool_forms.label_studio,
    ),
    "argilla": Form(
        "Argilla records",
        "argilla.Dataset.from_disk: one record for each comparison, with every ranking.",
        "preferences",
        tool_forms.argilla,
    ),
    "csv": Form(
        "Spreadsheet",
        "Excel and LibreOffice: pairs as text, with formulas escaped.",
        "pairs",
        spreadsheet,
    ),
    "croissant": Form(
        "Croissant",
        "Dataset search engines and mlcroissant: croissant.json with the Parquet files.",
        "everything",
        croissant,
        by_axis=False,
    ),
    "lm-eval": Form(
        "lm-eval task",
        "lm-evaluation-harness: the held-out prompts as a task. Never train on them.",
        "heldout",
        heldout_forms.lm_eval,
        by_axis=False,
    ),
    "inspect": Form(
        "Inspect task",
        "Inspect: the held-out prompts as a task. Never train on them.",
        "heldout",
        heldout_forms.inspect_task,
        by_axis=False,
    ),
}
