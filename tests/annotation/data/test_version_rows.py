"""The rows of a frozen file: filters, order, words and pictures, read from Parquet that we write."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from annotation.data.exports.schemas import PAIR_SCHEMA
from annotation.data.exports.writers import TableWriter
from annotation.data.snapshots import freeze_snapshot
from annotation.data.version_rows import (
    RowQuery,
    facets_of,
    first_places,
    histogram,
    lengths_of,
    longer_wins,
    open_file,
    rows_of,
    schema_of,
)
from tests.factories import judged

pytestmark = pytest.mark.django_db


def said(text, role="assistant"):
    return [{"role": role, "content": text}]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """12,000 pairs in three row groups; one of them, far behind, has a rare word."""
    folder = tmp_path_factory.mktemp("version")
    with TableWriter(folder, "pairs", PAIR_SCHEMA) as writer:
        for n in range(12_000):
            rare = "Größe of a Quokka" if n == 11_900 else "a fern"
            writer.write(
                {
                    "prompt": said(f"question {n}", "user"),
                    "chosen": said(f"It is {rare}."),
                    "rejected": said("No."),
                    "prompt_id": f"id-{n}",
                    "annotator": f"annotator-{n % 3}",
                    "weight": float(n % 7),
                }
            )
    return pq.ParquetFile(folder / "pairs.parquet")


def numbers(parquet, n=3, **query):
    page = rows_of(parquet, RowQuery("pairs", **query), n, seconds=60)
    return [number for number, _ in page.rows], page.following


def test_pages_follow_each_other_to_the_end(pairs):
    assert pairs.num_row_groups == 3
    assert numbers(pairs) == ([0, 1, 2], 3)
    assert numbers(pairs, start=4_999) == ([4_999, 5_000, 5_001], 5_002)
    assert numbers(pairs, start=11_998) == ([11_998, 11_999], None)
    assert numbers(pairs, start=12_000) == ([], None)


def test_words_are_found_in_every_text_in_any_case(pairs):
    assert numbers(pairs, words="GRÖSSE quokka") == ([], None), "ß is no ss"
    assert numbers(pairs, words="größe QUOKKA") == ([11_900], None)
    assert numbers(pairs, words="question 11900") == ([11_900], None)
    assert numbers(pairs, words="user") == ([], None), "a role is no text of a person"
    assert numbers(pairs, words="annotator-2 fern", start=4) == ([5, 8, 11], 14)


def test_filters_and_order_go_together(pairs):
    filters = {"annotator": "annotator-1"}
    assert numbers(pairs, filters=filters) == ([1, 4, 7], 10)
    assert numbers(pairs, filters=filters, sort="weight") == ([7, 28, 49], 3)
    rows, following = numbers(pairs, sort="weight", is_falling=True, start=1_713)
    assert [row % 7 for row in rows] == [6, 5, 5], "1,714 rows have the highest weight"
    assert following == 1_716
    assert numbers(pairs, sort="weight", start=11_999)[1] is None


def test_a_search_that_takes_too_long_says_where_to_go_on(pairs):
    page = rows_of(pairs, RowQuery("pairs", words="quokka"), 3, seconds=0)
    assert (page.rows, page.searched, page.following) == ([], 5_000, 5_000)
    page = rows_of(pairs, RowQuery("pairs", words="quokka", start=10_000), 3, seconds=0)
    assert [number for number, _ in page.rows] == [11_900]
    assert page.searched is None


def test_a_version_is_counted_as_it_was_frozen(project, ada):
    for _ in range(3):
        judged(project, by=ada, ranks={"helpfulness": (1, 2, 2, 3), "safety": (1, 1, 1, 1)})
    judged(project, by=ada, ranks={"helpfulness": (4, 3, 2, 1), "safety": (1, 1, 1, 1)})
    version = freeze_snapshot(project, by=None)
    assert first_places(version, "preferences")["helpfulness"] == [0.75, 0.0, 0.0, 0.25]
    assert first_places(version, "preferences")["safety"] == [0.25] * 4
    lengths = lengths_of(version, "preferences", "responses")
    assert (lengths.n, lengths.longest, sum(lengths.counts)) == (16, 33, 16)
    assert longer_wins(version, "pairs-helpfulness") is None, "all responses are equally long"
    rounds = [batch.name for batch in project.batches.order_by("pk")]
    assert facets_of(version, "preferences") == {"round": [(name, 1) for name in rounds]}
    names = [name for name, _ in schema_of(open_file(version, "preferences"))]
    assert names[0] == "judgment_id"


def test_a_histogram_keeps_every_length():
    counted = histogram(np.array([0, 1, 5, 5, 1_000_000]))
    assert sum(counted.counts) == counted.n == 5
    assert counted.counts[-1] == 1
    assert histogram(np.zeros(0)).n == 0
