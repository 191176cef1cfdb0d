"""Bring the catalogues up to date with what the annotator's pages say: `python locale/make.py`.

Reads templates, Python and scripts, updates locale/<language>/LC_MESSAGES/*.po and compiles them
to .mo, both committed: a machine that only runs the product needs no gettext and no Babel. Prints
what still wants a translation and ends with 1 if anything does. `--check` writes nothing.
"""

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import django
from babel.messages.catalog import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LANGUAGES = ("de",)
WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)

# Where an annotator or a reviewer gets to. Other pages of researchers and admins stay English so far.
TEMPLATES = (
    "base.html",
    "403_csrf.html",
    "404.html",
    "500.html",
    "503.html",
    "signed_out.html",
    "account/*.html",
    "mfa/*.html",
    "mfa/*/*.html",
    "socialaccount/*.html",
    "components/connection.html",
    "components/form_fields.html",
    "components/messages.html",
    "components/tabs.html",
    "components/theme_switch.html",
    "components/topbar.html",
    "annotation/_*.html",
    "annotation/dialogues/*.html",
    "annotation/projects/guidelines.html",
    "annotation/gold/*.html",
    "annotation/home.html",
    "annotation/judge/*.html",
    "annotation/account/progress.html",
    "annotation/account/preferences.html",
    "annotation/account/sessions.html",
    "annotation/account/invitation.html",
    "annotation/account/data.html",
    "annotation/projects/overview.html",
    "annotation/quality/*.html",
    "annotation/review/*.html",
)
PYTHON = ("annotation/**/*.py", "config/second_factor.py", "rlhf/serving/*.py")
SCRIPTS = (
    "static/js/dialogue.js",
    "static/js/judge.js",
    "static/js/judge/*.js",
    "static/js/review.js",
)
KEYWORDS = {
    "gettext": None,
    "gettext_lazy": None,
    "gettext_noop": None,
    "_": None,
    "ngettext": (1, 2),
    "pgettext": ((1, "c"), 2),
    "npgettext": ((1, "c"), 2, 3),
}

Message = str | tuple[str, str]


def found_in(patterns: tuple[str, ...], root: Path) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(root.glob(pattern))


def words_of_templates() -> Iterator[Message]:
    from django.utils.translation.template import templatize

    for path in found_in(TEMPLATES, ROOT / "templates"):
        # Django makes a template read like Python calls; indentation means nothing there.
        lines = (line.strip() for line in templatize(path.read_text()).splitlines())
        yield from words_of("python", "\n".join(lines).encode())


def words_of(method: str, source: bytes) -> Iterator[Message]:
    for _, message, _, _ in extract(method, BytesIO(source), KEYWORDS):
        yield tuple(message) if isinstance(message, tuple | list) else message  # type: ignore[misc]


def words_of_protocols() -> Iterator[Message]:
    """Axes, strengths, attributes and harms of the published protocols: data, not code."""
    from annotation.protocols import EARLIER_WORDS, PRESETS

    for preset in PRESETS.values():
        for axis in preset.axes:
            yield from (axis["name"], axis["question"])
        scale = preset.protocol.scale
        yield from (level.label for level in scale.levels)
        yield scale.tie
        for one in preset.protocol.attributes:
            yield from (one.name, one.question, one.low_label, one.high_label)
        yield from dict(preset.protocol.harms).values()
    yield from EARLIER_WORDS


def wanted() -> dict[str, list[Message]]:
    """Catalogue name to its messages, in the order they are met."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    sys.path.insert(0, str(ROOT))
    django.setup()
    pages = [*words_of_templates(), *words_of_protocols()]
    for path in found_in(PYTHON, ROOT):
        pages += words_of("python", path.read_bytes())
    scripts: list[Message] = []
    for path in found_in(SCRIPTS, ROOT):
        scripts += words_of("javascript", path.read_bytes())
        # Babel reads over some calls within a template string.
        scripts += re.findall(r'\bgettext\("((?:[^"\\]|\\.)*)"', path.read_text())
        scripts += re.findall(r'\bngettext\("([^"]*)", "([^"]*)"', path.read_text())
    return {
        "django": [message for message in dict.fromkeys(pages) if message],
        "djangojs": [message for message in dict.fromkeys(scripts) if message],
    }


def updated(old: Catalog, messages: list[Message], language: str) -> Catalog:
    """The messages with the translations that there are; what is no longer said is dropped."""
    # Fixed dates: the time of writing would make every run a change.
    new = Catalog(
        locale=language,
        project="Ground Control",
        version="1",
        charset="utf-8",
        fuzzy=False,
        creation_date=WRITTEN,
        revision_date=WRITTEN,
        header_comment="# The German of Ground Control's annotator pages; made by locale/make.py.",
    )
    # A plural may be said alone elsewhere (ngettext and gettext of one text): the plural wins.
    plurals = {message[0] for message in messages if isinstance(message, tuple)}
    for message in messages:
        if isinstance(message, str) and message in plurals:
            continue
        key = message[0] if isinstance(message, tuple) else message
        known = old.get(key)
        new.add(message, known.string if known is not None else "", flags=flags_of(message))
    return new


def flags_of(message: Message) -> set[str]:
    text = message if isinstance(message, str) else " ".join(message)
    return {"python-format"} if re.search(r"%\(\w+\)s", text) else set()


def missing(catalogue: Catalog) -> list[str]:
    """What has no translation, or one that loses a %(name)s."""
    wrong = []
    for message in catalogue:
        if not message.id:
            continue
        ids = message.id if isinstance(message.id, tuple | list) else (message.id,)
        strings = message.string if isinstance(message.string, tuple | list) else (message.string,)
        names = set(re.findall(r"%\(\w+\)s", ids[-1]))
        if not all(strings) or names - set(re.findall(r"%\(\w+\)s", strings[-1])):
            wrong.append(ids[0])
    return wrong


def as_po(catalogue: Catalog) -> bytes:
    text = BytesIO()
    write_po(text, catalogue, width=100, no_location=True)
    return text.getvalue()


def as_mo(catalogue: Catalog) -> bytes:
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    return compiled.getvalue()


def main(*, check: bool) -> int:
    problems = []
    for domain, messages in wanted().items():
        for language in LANGUAGES:
            folder = HERE / language / "LC_MESSAGES"
            po, mo = folder / f"{domain}.po", folder / f"{domain}.mo"
            old = read_po(BytesIO(po.read_bytes()), locale=language) if po.exists() else Catalog()
            new = updated(old, messages, language)
            problems += [f"{language} {domain}: {text!r}" for text in missing(new)]
            for path, body in ((po, as_po(new)), (mo, as_mo(new))):
                if not check:
                    folder.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(body)
                elif not path.exists() or path.read_bytes() != body:
                    problems.append(f"{path.relative_to(ROOT)} is not up to date")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
