"""The dataset card of a snapshot: front matter that `load_dataset` reads, then prose for people."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from annotation.data.dataset_terms import citation, filter_lines, limits, terms
from annotation.data.exports.schema_file import features
from annotation.data.snapshot_files import (
    DEMONSTRATIONS,
    JUDGMENTS,
    RATINGS,
    config_name,
    pair_file,
)
from annotation.data.snapshot_options import SnapshotOptions
from annotation.models import Snapshot
from annotation.protocols import (
    COMPARING,
    DEMONSTRATE,
    DIALOGUE,
    PAIR,
    RANK,
    RATE,
    REWRITE,
    SAFE_OR_NOT,
    WRITING,
    Protocol,
    called,
    is_mark,
)

# Licenses that the Hub's card has a key for; any other is "other" there, and named in the text.
HUB_LICENSES = {
    "apache-2.0", "mit", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-sa-3.0",
    "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "odc-by", "odbl", "pddl", "bsd-3-clause", "unlicense",
}  # fmt: skip

TASKS = {
    RANK: "ranked the responses, ties allowed",
    PAIR: "chose the better of two responses",
    DIALOGUE: "wrote to the model and chose the better of two responses at each turn",
    DEMONSTRATE: "wrote the ideal response",
    REWRITE: "chose a response and corrected it",
    RATE: "judged each response by itself",
}

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def dataset_card(snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> str:
    """The card, in the form that the Hugging Face Hub expects of a README.md.

    `schemas` has the columns of each table that the snapshot holds, by the names of their files.
    """
    sections = (
        _summary, _contents, _collection, _agreement, _filters, _limits, _sources, _cite,
    )  # fmt: skip
    lines = [line for section in sections for line in section(snapshot)]
    return "\n".join([*_front_matter(snapshot, schemas), "", *lines, ""])


def _front_matter(snapshot: Snapshot, schemas: Mapping[str, pa.Schema]) -> list[str]:
    counts = snapshot.counts
    licenses = {entry["licence"].lower() for entry in snapshot.licences}
    license = licenses.pop() if len(licenses) == 1 else "other"
    lines = [
        "---",
        f"pretty_name: {json.dumps(_one_line(str(snapshot.project.name)), ensure_ascii=False)}",
        f"license: {license if license in HUB_LICENSES else 'other'}",
        "task_categories:",
        "- text-generation",
        "tags:",
        "- preference",
        "- rlhf",
        "- trl",
        f"size_categories:\n- {_size_category(_n_rows(counts))}",
        "configs:",
    ]
    is_default = True
    for name, n in [
        *((pair_file(axis), n) for axis, n in counts["pairs"].items()),
        (JUDGMENTS, counts["judgments"]),
        (RATINGS, counts.get("ratings")),
        (DEMONSTRATIONS, counts.get("demonstrations")),
    ]:
        if not n:
            continue
        lines.append(f"- config_name: {config_name(name)}")
        if is_default:
            lines.append("  default: true")
        lines += ["  data_files:", "  - split: train", f"    path: {name}.parquet"]
        # JSON is YAML, and quotes keys such as "no", which YAML takes for false.
        columns = (json.dumps(column, ensure_ascii=False) for column in features(schemas[name]))
        lines += ["  features:", *(f"  - {column}" for column in columns)]
        is_default = False
    return [*lines, "---"]


def _n_rows(counts: dict[str, Any]) -> int:
    """The rows of all files together, as a hub counts them."""
    others = (counts.get(name) or 0 for name in ("judgments", "ratings", "demonstrations"))
    return int(sum(counts["pairs"].values()) + sum(others))


def _size_category(n: int) -> str:
    for limit, name in SIZES:
        if n < limit:
            return name
    return "10M<n<100M"


def _summary(snapshot: Snapshot) -> list[str]:
    return [
        f"# {_one_line(str(snapshot.project.name))}, version {snapshot.version}",
        "",
        _one_line(snapshot.note) or "Human preferences between responses of language models.",
        "",
        (
            f"Frozen {snapshot.created_at:%Y-%m-%d %H:%M} UTC. The files never change; "
            "`sha256sum -c SHA256SUMS` checks them."
        ),
        "",
    ]


def _contents(snapshot: Snapshot) -> list[str]:
    counts = snapshot.counts
    left_out = counts["left_out"]
    return [
        "## Contents",
        "",
        f"{_amounts(counts)}, by {', '.join(_annotators(counts))}.",
        *_consensus(snapshot),
        "",
        "| part | rows | one row is |",
        "|---|---|---|",
        *_parts(counts, snapshot.query.get("ties", "drop")),
        "",
        (
            "Ranks are one per response: 1 is best, equal numbers are ties, `null` means not ranked. "
            "`annotator` is a pseudonym, the same for one person in the whole project."
        ),
        "",
        (
            f"Left out: {left_out['heldout']} judgments of held-out and watch prompts (never exported "
            f"for training), {left_out['not_signed_off']} from sources that nobody signed off, "
            f"{left_out.get('filtered', 0)} by filters, "
            f"{left_out['excluded']} excluded, {left_out.get('overruled', 0)} superseded by review."
        ),
        "",
    ]


def _consensus(snapshot: Snapshot) -> list[str]:
    if SnapshotOptions.of_query(snapshot.query).votes == "raw":
        return []
    return [
        "",
        (
            "Each ranking is the consensus of all votes on one comparison, weighted by how reliable "
            "their annotators are (a Dawid-Skene model); `annotator` is `consensus`. Rulings of "
            "reviewers stand for themselves; ratings and written answers are those of each person."
        ),
    ]


def _amounts(counts: dict[str, Any]) -> str:
    if counts["judgments"]:
        return (
            f"{counts['judgments']} judgments of {counts['prompts']} prompts, on average "
            f"{counts['responses_per_judgment']:g} responses each"
        )
    parts = []
    if counts["ratings"]:
        parts.append(f"{counts['ratings']} ratings of responses")
    if counts["demonstrations"]:
        parts.append(f"{counts['demonstrations']} written responses")
    return f"{' and '.join(parts)} to {counts['prompts']} prompts"


def _annotators(counts: dict[str, Any]) -> list[str]:
    people, simulated = counts["annotators"], counts["simulated_annotators"]
    made_by = []
    if people:
        made_by.append("one person" if people == 1 else f"{people} people")
    if simulated:
        made_by.append(
            f"**{simulated} simulated {'annotator' if simulated == 1 else 'annotators'}** "
            f"(programs; {counts['judgments_simulated']} judgments, "
            "`annotator` starts with `simulated-`)"
        )
    if counts["judgments_imported"]:
        made_by.append(
            f"an import of files from elsewhere ({counts['judgments_imported']} judgments, "
            "`annotator` starts with `imported-`)"
        )
    return made_by


def _parts(counts: dict[str, Any], ties_policy: str) -> list[str]:
    """The table's lines: each configuration, its number of rows, and what a row is."""
    lines = []
    for axis, n in counts["pairs"].items():
        ties = counts["ties"][axis]
        treated = "in both directions, at half the weight" if ties_policy == "half" else "left out"
        what = f"a pair of responses ranked on {axis}, in TRL's conversational preference format"
        lines.append(f"| `{config_name(pair_file(axis))}` | {n} | {what} ({ties} ties {treated}) |")
    for name, key, what in (
        ("judgments", "judgments", "one person's ranking of all responses to a prompt, by axis"),
        ("ratings", "ratings", "one person's marks, safety vote and kinds of harm of one response"),
        (
            "demonstrations",
            "demonstrations",
            "a response that a person wrote, or corrected (`based_on`)",
        ),
    ):
        if n := counts.get(key):
            lines.append(f"| `{name}` | {n} | {what} |")
    return lines


def _collection(snapshot: Snapshot) -> list[str]:
    axes = snapshot.project.axes
    return [
        "## Collection",
        "",
        " ".join(collection_sentences(snapshot)),
        "",
        "The axes:",
        "",
        *(f"- **{_one_line(axis['name'])}**: {_one_line(axis['question'])}" for axis in axes),
        "",
        (
            f"{_guidelines(snapshot.counts)}Splits are permanent; only prompts of the train split "
            "are included."
        ),
        "",
    ]


def collection_sentences(snapshot: Snapshot) -> list[str]:
    """How the judgments were made: those of this project, and imported ones."""
    counts, sentences = snapshot.counts, []
    if counts.get("annotators") or counts.get("simulated_annotators"):
        sentences.append(
            "Annotators saw a conversation and its responses side by side, in an order shuffled "
            "for each annotator. They were not told which model wrote which response."
        )
        protocols = {
            (batch["interface"], json.dumps(batch["protocol"], sort_keys=True)): batch
            for batch in snapshot.query.get("batches", [])
            if not batch["is_imported"]
        }
        sentences += [
            _task(batch["interface"], Protocol.from_json(batch["protocol"]))
            for batch in protocols.values()
        ]
    if counts.get("judgments_imported"):
        sentences.append(
            "Imported judgments were made elsewhere; their sources describe how. A file that names "
            "only the better of two responses gives ranks 1 and 2."
        )
    return sentences


def _task(interface: str, protocol: Protocol) -> str:
    """The questions of one protocol, as a sentence."""
    parts = [TASKS[interface]]
    scale = protocol.scale
    if interface in (PAIR, DIALOGUE) and (len(scale.levels) > 1 or scale.tie):
        steps = [f"{level.label} (margin {level.margin:.3g})" for level in scale.levels]
        parts.append(f"with a strength: {', '.join(reversed(steps))}")
        if scale.tie:
            parts[-1] += f", or “{_one_line(scale.tie)}”"
    if interface == RANK and protocol.unranked == "below":
        parts.append("only had to rank the best responses; the rest is below (`unranked`: `below`)")
    if protocol.all_bad and interface in COMPARING:
        parts.append("could answer that no response is good enough (`all_bad`)")
    if interface not in WRITING:
        if protocol.attributes:
            scales = [f"{a.name} ({a.low} to {a.high})" for a in protocol.attributes]
            parts.append(f"rated each response on {', '.join(scales)}")
        if protocol.safety:
            harms = f", with {len(protocol.harms)} kinds of harm" if protocol.harms else ""
            parts.append(f"voted on each response as safe or unsafe{harms}")
    if protocol.reason == "required":
        parts.append(f"had to give a reason of {protocol.reason_min} characters or more")
    label = f" (`{protocol.preset}`)" if protocol.preset else ""
    return f"They {'; '.join(parts)}{label}."


def _guidelines(counts: dict[str, Any]) -> str:
    """The versions of the guidelines under which the judgments were made."""
    versions = counts.get("guidelines") or {}
    if not versions:
        return ""
    if len(versions) == 1:
        return f"Guidelines: version {next(iter(versions))}. "
    by_version = ", ".join(f"version {version}: {n} judgments" for version, n in versions.items())
    return f"Guidelines: {by_version}. "


def _agreement(snapshot: Snapshot) -> list[str]:
    lines = [
        f"- **{called(measure)}**: {agreement_sentence(measure, figures)}"
        for measure, figures in snapshot.agreement.items()
    ]
    return ["## Agreement", "", *lines, ""]


def agreement_sentence(measure: str, figures: dict[str, Any]) -> str:
    """Agreement on one axis or mark, in words with intervals and n."""
    if figures["pairwise"] is None:
        return str(figures.get("reason", "not measured."))
    share = f"{figures['pairwise']:.1%} of the time{_interval(figures['pairwise_ci'], '.1%')}"
    n = f"n = {figures['n_pairs']}"
    if measure == SAFE_OR_NOT:
        sentence = f"two annotators cast the same vote {share} ({n})"
    elif is_mark(measure):
        sentence = f"two annotators give the same mark {share} ({n})"
    else:
        sentence = f"two annotators order two responses alike {share} (ties count half, {n})"
    if figures["alpha"] is not None:
        sentence += (
            f"; Krippendorff's alpha (ordinal) {figures['alpha']:.3f}"
            f"{_interval(figures['alpha_ci'], '.3f')}, {figures['n_units']} responses"
        )
    return sentence + "."


def _interval(bounds: list[float] | None, form: str) -> str:
    if not bounds:
        return ""
    return f" [{format(bounds[0], form)}, {format(bounds[1], form)}]"


def _filters(snapshot: Snapshot) -> list[str]:
    lines = filter_lines(snapshot) or ["No filter had read the texts."]
    return ["## Filters", "", *(f"- {_escaped(line)}" for line in lines), ""]


def _limits(snapshot: Snapshot) -> list[str]:
    return ["## Limits", "", *(f"- {line}" for line in limits(snapshot)), ""]


def _cite(snapshot: Snapshot) -> list[str]:
    return ["", "## Citation", "", "```bibtex", citation(snapshot), "```"]


def _sources(snapshot: Snapshot) -> list[str]:
    lines = ["## Sources and licenses", "", "| source | license | judgments |", "|---|---|---|"]
    for entry in snapshot.licences:
        name = _cell(entry["source"])
        if entry["url"]:
            name = f"[{name}]({entry['url']})"
        license = _cell(entry["licence"]) or "not stated"
        lines.append(f"| {name} | {license} | {entry['n_judgments']} |")
    return [*lines, "", *(f"- {_escaped(sentence)}" for sentence in terms(snapshot))]


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _escaped(text).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Text in which nothing is a link."""
    return _one_line(text).replace("[", "\\[").replace("]", "\\]").replace("<", "&lt;")
