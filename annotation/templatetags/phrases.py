"""The texts of scripts, in the language of the page: `{% phrases "js/judge.js" %}`."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from django import template
from django.conf import settings
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.html import json_script
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation.trans_real import DjangoTranslation
from django.views.i18n import JavaScriptCatalog

register = template.Library()

SCRIPTS = Path(settings.BASE_DIR) / "static"
SENTENCE = re.compile(r'\bn?gettext\(("(?:[^"\\]|\\.)*")')
IMPORTED = re.compile(r'^import .*?"(\.[^"]+)";$', re.MULTILINE)


class Dense(DjangoJSONEncoder):
    """Letters as they are and no spaces: the page is UTF-8 and has a limit to its weight."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"ensure_ascii": False, "separators": (",", ":")})


@register.simple_tag
def phrases(*scripts: str) -> SafeString:
    """The texts of these scripts, as a block of data that static/js/judge/words.js reads.

    Data is never run, so no policy has to allow it. What the scripts import is counted in; a script
    that a page loads later must be named as well. An empty name counts for nothing.
    """
    words = _phrases(get_language() or "en", tuple(script for script in scripts if script))
    return json_script(words, "phrases", encoder=Dense)


def number_of(sentence: str) -> str:
    """The short name of an English sentence: words.js computes the same, so none travels twice."""
    number = 0
    for letter in sentence:
        number = (number * 31 + ord(letter)) % 0x1000000
    return f"{number:x}"


def sentences_of(script: str) -> list[str]:
    """The sentences of a script and of all that it imports, by their English."""
    return _sentences_in(SCRIPTS / script)


def _sentences_in(script: Path) -> list[str]:
    sentences, wanted, seen = [], [script], set()
    while wanted:
        path = wanted.pop().resolve()
        if path in seen:
            continue
        seen.add(path)
        source = path.read_text()
        sentences += [json.loads(sentence) for sentence in SENTENCE.findall(source)]
        wanted += [path.parent / imported for imported in IMPORTED.findall(source)]
    return sentences


@cache
def _phrases(language: str, scripts: tuple[str, ...]) -> dict[str, Any]:
    """Number of a sentence to its words in this language: a text, or its plural forms in order."""
    catalog = _catalog(language)
    sentences = dict.fromkeys(sentence for script in scripts for sentence in sentences_of(script))
    return {number_of(sentence): catalog[sentence] for sentence in sentences if sentence in catalog}


@cache
def _catalog(language: str) -> dict[str, Any]:
    view = JavaScriptCatalog()
    view.translation = DjangoTranslation(language, domain="djangojs")
    catalog: dict[str, Any] = view.get_catalog()
    return catalog
