"""Precision, recall and F1 of the filters on labeled texts, and rows a second.

    python -m benchmarks.filters                                  the cases of filter_cases.jsonl
    python -m benchmarks.filters --write                          the same, kept for the filters' page
    python -m benchmarks.filters --data FILE --text tweet --label class --positive 0,1 \\
        [--by COLUMN] [--filters hate,abuse,profanity] [--train] [--half 0|1]

FILE is JSON Lines or CSV, gzipped or not. A row is positive if its label is one of --positive, and
flagged if one of the filters finds something at its default threshold. --by prints the share flagged by
another column, --train adds a classifier trained on half of the file and measured on the other half,
--half 0 or 1 measures one of these halves only. Texts are never printed. Times are processor time.
"""

import argparse
import csv
import gzip
import json
import math
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from annotation.data.filters import classifier, near_duplicates
from annotation.data.filters.finding import strongest
from annotation.data.filters.identity import identity_gap
from annotation.data.filters.table import FIGURES, FILTERS, HAP

CASES = Path(__file__).with_name("filter_cases.jsonl")
Row = dict[str, str]
Flagged = Callable[[str], bool]


def rows_of(path: Path) -> Iterator[Row]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        if ".json" in path.name:
            yield from (json.loads(line) for line in file if line.strip())
        else:
            yield from csv.DictReader(file, delimiter="\t" if ".tsv" in path.name else ",")


def interval(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    z, p = 1.96, k / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return middle - half, middle + half


def scores(outcomes: Sequence[tuple[bool, bool]]) -> dict[str, float]:
    """Of (is positive, is flagged): precision, recall and F1."""
    hits = sum(positive and flagged for positive, flagged in outcomes)
    n_flagged = sum(flagged for _, flagged in outcomes)
    n_positive = sum(positive for positive, _ in outcomes)
    precision = hits / n_flagged if n_flagged else 1.0
    recall = hits / n_positive if n_positive else 1.0
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "hits": hits,
        "n_flagged": n_flagged,
        "n_positive": n_positive,
    }


def flags(name: str) -> Flagged:
    chosen = FILTERS[name]
    assert chosen.find is not None

    def is_flagged(text: str) -> bool:
        finding = strongest(chosen.find(text))
        return finding is not None and finding.score >= chosen.threshold

    return is_flagged


def line(name: str, outcomes: Sequence[tuple[bool, bool]]) -> str:
    found = scores(outcomes)
    low, high = interval(int(found["hits"]), int(found["n_flagged"]))
    r_low, r_high = interval(int(found["hits"]), int(found["n_positive"]))
    return (
        f"{name:<28} P {found['precision']:.3f} [{low:.3f}, {high:.3f}]  R {found['recall']:.3f} "
        f"[{r_low:.3f}, {r_high:.3f}]  F1 {found['f1']:.3f}  flagged {found['n_flagged']:.0f} of "
        f"{len(outcomes)}, positive {found['n_positive']:.0f}"
    )


def in_half(text: str) -> int:
    """Which half of a file a text is in, by its own hash."""
    return zlib.crc32(text.encode()) & 1


def timed(name: str, act: Callable[[str], object], texts: Sequence[str]) -> None:
    started = time.process_time()
    for text in texts:
        act(text)
    seconds = time.process_time() - started
    print(
        f"{name:<28} {len(texts) / seconds:,.0f} rows/s ({len(texts)} rows, {seconds:.2f} s of CPU)"
    )


def measure_file(options: argparse.Namespace) -> None:
    rows = [row for path in options.data for row in rows_of(path)]
    positive = set(options.positive.split(","))
    if options.half is not None:
        rows = [row for row in rows if in_half(row[options.text]) == options.half]
    texts = [row[options.text] for row in rows]
    labels = [str(row[options.label]) in positive for row in rows]
    names = options.filters.split(",")
    by_filter = {name: [flags(name)(text) for text in texts] for name in names}
    union = [any(flagged) for flagged in zip(*by_filter.values(), strict=True)]
    for name, flagged in {**by_filter, " or ".join(names): union}.items():
        print(line(name, list(zip(labels, flagged, strict=True))))
    print_by_class(rows, union, options.by or options.label)
    if options.train:
        measure_classifier(texts, labels, union, options)
    for name in names:
        timed(name, FILTERS[name].find or str, texts)
    sample = texts[:20_000]
    started = time.process_time()
    pairs = near_duplicates.near_duplicates(sample)
    seconds = time.process_time() - started
    print(
        f"{'near-duplicates':<28} {len(sample) / seconds:,.0f} rows/s ({len(sample)} rows, "
        f"{seconds:.2f} s of CPU, {len(pairs)} pairs)"
    )


def print_by_class(rows: Sequence[Row], flagged: Sequence[bool], column: str) -> None:
    by_class: dict[str, list[bool]] = defaultdict(list)
    for row, is_flagged in zip(rows, flagged, strict=True):
        by_class[str(row[column])].append(is_flagged)
    for name, outcomes in sorted(by_class.items()):
        k, n = sum(outcomes), len(outcomes)
        low, high = interval(k, n)
        print(f"  {column} {name:<24} flagged {k / n:7.1%} [{low:.1%}, {high:.1%}]  n {n}")


def measure_classifier(
    texts: Sequence[str], labels: Sequence[bool], union: Sequence[bool], options: argparse.Namespace
) -> None:
    """Train on one half, measure on the other, with and without the word lists."""
    learning = [i for i, text in enumerate(texts) if in_half(text) == 0]
    testing = [i for i, text in enumerate(texts) if in_half(text) == 1]
    started = time.process_time()
    trained = classifier.train([texts[i] for i in learning], [labels[i] for i in learning])
    print(f"trained on {len(learning)} texts in {time.process_time() - started:.1f} s of CPU")
    for threshold in (0.5, 0.8, 0.9, 0.95):
        flagged = [trained.score(texts[i]) >= threshold for i in testing]
        outcomes = [(labels[i], own) for i, own in zip(testing, flagged, strict=True)]
        print(line(f"classifier at {threshold}", outcomes))
        both = [(labels[i], own or union[i]) for i, own in zip(testing, flagged, strict=True)]
        print(line(f"  or the word lists at {threshold}", both))
        gap = identity_gap(trained.score, threshold)
        print(
            f"  identity gap: flagged {gap.flagged:.1%}, score {gap.score:.1%} ({gap.highest} – {gap.lowest})"
        )
        for path in options.safe or ():
            prompts = [row["prompt"] for row in rows_of(path) if row.get("label") == "safe"]
            n = sum(trained.score(prompt) >= threshold for prompt in prompts)
            print(
                f"  {path.name}: {n} of {len(prompts)} safe prompts flagged ({n / len(prompts):.1%})"
            )
    print(line("word lists, same half", [(labels[i], union[i]) for i in testing]))
    timed("classifier", trained.score, [texts[i] for i in testing])


def measure_cases(*, write: bool) -> None:
    """Every filter on the functional cases: a case names the filters that should flag it."""
    cases = [json.loads(line) for line in CASES.read_text(encoding="utf-8").splitlines() if line]
    kept = json.loads(FIGURES.read_text(encoding="utf-8"))
    for name, chosen in FILTERS.items():
        if chosen.find is None or not chosen.is_estimate:
            continue
        is_flagged = flags(name)
        outcomes = [(name in case["expects"], is_flagged(case["text"])) for case in cases]
        print(line(name, outcomes))
        wrong: dict[str, list[bool]] = defaultdict(list)
        for case, (positive, flagged) in zip(cases, outcomes, strict=True):
            wrong[case["class"]].append(positive != flagged)
        for class_name, mistakes in wrong.items():
            if any(mistakes):
                print(f"  wrong in {class_name}: {sum(mistakes)} of {len(mistakes)}")
        found = scores(outcomes)
        others = [f for f in kept.get(name, []) if f["data"] != "functional cases"]
        own = {"precision": round(found["precision"], 3), "recall": round(found["recall"], 3)}
        kept[name] = [{**own, "n": len(cases), "data": "functional cases"}, *others]
        score = lambda text, find=chosen.find: getattr(strongest(find(text)), "score", 0.0)  # noqa: E731
        gap = identity_gap(score, chosen.threshold, chosen.high)
        print(f"  identity gap: flagged {gap.flagged:.1%}, score {gap.score:.1%}")
    if write:
        FIGURES.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, action="append", help="labeled texts; may be repeated")
    parser.add_argument("--text", default="text", help="the column with the text")
    parser.add_argument("--label", default="label", help="the column with the label")
    parser.add_argument("--positive", default="1", help="labels that should be flagged")
    parser.add_argument("--by", help="print the share flagged by this column")
    parser.add_argument("--filters", default=",".join(HAP))
    parser.add_argument(
        "--train", action="store_true", help="train a classifier on half of the file"
    )
    parser.add_argument(
        "--safe", type=Path, action="append", help="with --train: prompts not to flag"
    )
    parser.add_argument("--half", type=int, choices=(0, 1))
    parser.add_argument("--write", action="store_true", help="keep the figures for the page")
    options = parser.parse_args()
    if options.data:
        measure_file(options)
    else:
        measure_cases(write=options.write)


if __name__ == "__main__":
    sys.exit(main())
