"""The cast and the places of every test: ada and ben annotate, vera reviews, rita researches,

grace is admin, and otto belongs to another team.
"""

import os
import tempfile
from pathlib import Path

import pytest
from django.utils import translation

# The tests' data (SQLite file, runs, queue) never touch a person's own.
os.environ.setdefault("GROUND_CONTROL_DATA", tempfile.mkdtemp(prefix="ground-control-test-"))

from annotation.judge import queues
from tests.factories import ProjectFactory, member


@pytest.fixture(autouse=True)
def _own_folders(settings, tmp_path):
    """Each test has its own run folders, snapshots, caches and queue."""
    for name in ("RUNS_DIR", "SNAPSHOTS_DIR", "CACHE_DIR", "QUEUE_DIR"):
        folder = Path(tmp_path) / name.lower()
        folder.mkdir()
        setattr(settings, name, folder)
    settings.MODEL_FOLDERS = [tmp_path.resolve()]
    # Limits on how often somebody may ask are counted in the cache: each test begins at none.
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
            "LOCATION": str(tmp_path),
        }
    }
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def _own_cursors():
    """Ids come again in the next test, and where somebody's look ended is remembered by id."""
    queues.cursors.clear()


@pytest.fixture
def window(monkeypatch):
    """window(n): a look misses nothing among the first n, so that few comparisons make one ahead."""

    def narrow(n):
        monkeypatch.setattr(queues, "WINDOW", n)

    return narrow


@pytest.fixture(autouse=True)
def _own_language():
    """A page asked for in German leaves its thread German: the next test begins in English."""
    yield
    translation.deactivate()


@pytest.fixture
def project(db):
    return ProjectFactory(slug="apollo", name="Apollo")


@pytest.fixture
def ada(project):
    return member(project, "ada", "annotator")


@pytest.fixture
def ben(project):
    return member(project, "ben", "annotator")


@pytest.fixture
def vera(project):
    return member(project, "vera", "reviewer")


@pytest.fixture
def rita(project):
    return member(project, "rita", "researcher")


@pytest.fixture
def grace(project):
    return member(project, "grace", "admin")


@pytest.fixture
def otto(db):
    return member(ProjectFactory(slug="soyuz", name="Soyuz"), "otto", "admin")
