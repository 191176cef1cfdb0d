"""The documents say what the code does: every setting, variable, stage and file is in them."""

import re
import runpy

from django.conf import settings

from rlhf.models import Round

DOCS = settings.BASE_DIR / "docs"


def test_the_page_of_settings_is_what_the_classes_say():
    page = runpy.run_path(str(DOCS / "make_settings.py"))["page"]
    assert (DOCS / "settings.md").read_text() == page(), "run python docs/make_settings.py"


def test_every_environment_variable_is_in_the_table_for_operators():
    code = (settings.BASE_DIR / "config" / "settings.py").read_text()
    read = set(re.findall(r'env\.\w+\(\s*"([A-Z_]+)"', code))
    assert len(read) > 20
    page = (DOCS / "production.md").read_text()
    assert {name for name in read if f"`{name}`" not in page} == set()


def test_every_stage_that_is_a_program_has_its_files_described():
    page = (DOCS / "formats.md").read_text()
    programs = {*Round.BASE_PLAN, *Round.MODEL_PLAN, *Round.FULL_PLAN} - {
        "annotate",
        "snapshot",
        "verdict",
    }
    for stage in programs:
        assert re.search(rf"^### {stage} — ", page, re.MULTILINE), stage


def test_every_module_of_the_engine_is_on_its_map():
    on_map = set(re.findall(r"`(\w+)/?`", (DOCS / "walk.md").read_text()))
    engine = settings.BASE_DIR / "rlhf" / "training"
    modules = {p.stem for p in engine.glob("*.py")} | {
        p.parent.name for p in engine.glob("*/__init__.py")
    }
    assert {name for name in modules - {"__init__"} if name not in on_map} == set()


def test_every_link_between_the_documents_leads_somewhere():
    for page in [settings.BASE_DIR / "README.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} → {target}"


def test_every_topic_of_the_log_has_its_current_figures_on_top_and_a_line_in_the_index():
    index = (DOCS / "log" / "README.md").read_text()
    for page in DOCS.glob("log/*.md"):
        if page.name != "README.md":
            headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
            assert headings[0] == "Current figures", page.name
            assert f"]({page.name})" in index, page.name


def test_every_test_that_the_page_on_security_names_is_there():
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", (DOCS / "security.md").read_text()))
    assert len(named) > 15
    assert {name for name in named if not (settings.BASE_DIR / name).exists()} == set()


def test_each_chapter_of_the_standard_is_claimed_with_a_test_or_not_used():
    text = (DOCS / "security.md").read_text()
    rows = re.findall(r"^\| V(\d+) .*?\|(.*?)\|(.*?)\|", text, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, 18))
    for number, claim, tests in rows:
        assert "`tests/" in tests or claim.strip() == "not used", f"V{number}"


def test_every_label_that_the_readme_names_is_on_a_page():
    readme = (settings.BASE_DIR / "README.md").read_text()
    root = settings.BASE_DIR
    sources = [*root.glob("templates/**/*.html"), *root.glob("*/pages/*.py"), *root.glob("*/*.py")]
    pages = "\n".join(path.read_text() for path in sources)
    labels = re.findall(r"(?<!\*)\*([A-Z][^*\n]+)\*(?!\*)", readme)
    assert len(labels) > 15
    parts = [part for label in labels for part in re.split(r" → | \d+", label) if part]
    assert [part for part in parts if part not in pages] == []
