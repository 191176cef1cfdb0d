"""Every example of a version's page does what it says, run as printed next to the unpacked folder."""

import html
import io
import re
import subprocess
import sys
import zipfile

import pytest

from annotation.data.snapshots import freeze_snapshot
from annotation.data.snippets import snippets_of
from tests.factories import judged

pytestmark = pytest.mark.django_db

PACKAGES = {"pandas": "pandas", "polars": "polars", "duckdb": "duckdb", "pyarrow": "pyarrow"}


def test_each_reader_opens_a_version_as_the_page_prints_it(client, project, ada, rita, tmp_path):
    for _ in range(2):
        judged(project, by=ada, ranks=(1, 2, 3, 4))
    version = freeze_snapshot(project, by=rita)
    assert [snippet.key for snippet in snippets_of(version, "x")] == list(PACKAGES)
    client.force_login(rita)
    page = client.get("/projects/apollo/data/1/").content.decode()
    archive = b"".join(client.get("/projects/apollo/data/1/archive.zip").streaming_content)
    zipfile.ZipFile(io.BytesIO(archive)).extractall(tmp_path / "apollo-v1")
    programs = []
    for key, package in PACKAGES.items():
        code = html.unescape(re.search(rf'<pre id="{key}-snippet"[^>]*>(.*?)</pre>', page, re.S)[1])
        try:
            __import__(package)
        except ImportError:
            continue  # polars and duckdb are in the extra for development
        programs.append(code)
    assert len(programs) >= 2
    # One process for all: each prints, and none is stopped by the one before.
    done = subprocess.run(
        [sys.executable, "-c", "\n\n".join(programs)],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.count("annotator") >= len(programs)
