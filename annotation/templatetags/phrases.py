"""The words that scripts say, in the language of the page: `{% phrases %}`."""

from functools import cache
from typing import Any

from django import template
from django.utils.html import json_script
from django.utils.safestring import SafeString
from django.utils.translation import get_language
from django.utils.translation.trans_real import DjangoTranslation
from django.views.i18n import JavaScriptCatalog

register = template.Library()


@register.simple_tag
def phrases() -> SafeString:
    """A block of data (never run, so no policy has to allow it) that static/js/judge/words.js reads."""
    return json_script(_catalogue(get_language() or "en"), "phrases")


@cache
def _catalogue(language: str) -> dict[str, Any]:
    """English to this language: a text, or its plural forms in order."""
    view = JavaScriptCatalog()
    view.translation = DjangoTranslation(language, domain="djangojs")
    catalogue: dict[str, Any] = view.get_catalog()
    return catalogue
