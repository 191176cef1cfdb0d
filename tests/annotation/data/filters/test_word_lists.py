"""Hate, abuse and profanity by word lists: whole words, disguises, neighbors, spans, and no identity gap."""

import pytest

from annotation.data.filters import word_lists
from annotation.data.filters.finding import strongest
from annotation.data.filters.identity import IdentityGap, identity_gap
from annotation.data.filters.table import FILTERS, HAP


def words_of(name, text):
    return [text[f.start : f.end] for f in word_lists.find(name, text)]


def test_the_three_classes_stay_apart():
    text = "What the fuck, you idiot!"
    assert words_of("profanity", text) == ["fuck"]
    assert words_of("abuse", "You asshole!") == ["asshole"]
    assert words_of("hate", text) == []


@pytest.mark.parametrize(
    "text", ["biiiitch", "b1tch", "b*tch", "BITCH", "the bitch's dog", "bitch!!!"]
)
def test_a_disguised_word_is_found(text):
    assert len(words_of("abuse", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Scunthorpe is a town; assess the class, pass the grass, a peacock and a raccoon.",
        "He bought a garden hoe. Hoe kan ik mijn fiets repareren?",
        "A chink in the armor; homo sapiens; magna cum laude; the blue tit; Dick Cheney.",
        "1234 5678 ***** $$$ @home 100%",
    ],
)
def test_a_harmless_word_is_not(text):
    assert [words_of(name, text) for name in HAP] == [[], [], []]


def test_spans_are_those_of_the_text_also_where_lower_case_is_longer():
    text = "İİİ said: you asshole"
    assert words_of("abuse", text) == ["asshole"]


def test_a_phrase_is_one_finding():
    assert words_of("abuse", "Please KILL YOURSELF now") == ["KILL YOURSELF"]


def test_reasons_do_not_repeat_the_word():
    for name, text in (("abuse", "du Arschloch"), ("profanity", "quelle merde")):
        (finding,) = word_lists.find(name, text)
        assert text[finding.start : finding.end].lower() not in finding.reason.lower()
    assert "German" in word_lists.find("abuse", "du Arschloch")[0].reason


@pytest.mark.parametrize("name", HAP)
def test_no_group_is_scored_by_its_name(name):
    chosen = FILTERS[name]
    gap = identity_gap(
        lambda text: getattr(strongest(chosen.find(text)), "score", 0.0), chosen.threshold
    )
    assert gap.passes
    assert gap.flagged == gap.score == 0


def test_the_identity_gap_names_the_groups_that_are_apart():
    gap = identity_gap(lambda text: 0.9 if "Muslim" in text else 0.1, threshold=0.5)
    assert gap == IdentityGap(1.0, pytest.approx(0.8), "Muslim", gap.lowest)
    assert not gap.passes


def test_a_line_that_is_no_entry_is_named(tmp_path):
    path = tmp_path / "xx.txt"
    path.write_text("# fine\n\ninsults .8: oaf/s\n")
    with pytest.raises(ValueError, match=r"xx.txt, line 3"):
        list(word_lists.read_list(path))
