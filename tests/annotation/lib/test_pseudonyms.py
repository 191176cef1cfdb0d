"""Pseudonyms outlive the key of the sessions, and change with a key of their own."""

import os
import subprocess
import sys

import pytest

from annotation.data.preferences import annotator_id


@pytest.mark.django_db
def test_a_pseudonym_depends_on_its_own_key_alone(project, ada, settings):
    before = annotator_id(project, ada)
    settings.SECRET_KEY = "another one, of at least thirty-two characters"
    assert annotator_id(project, ada) == before
    settings.PSEUDONYM_KEY = "another one"
    assert annotator_id(project, ada) != before


def keys_of(folder, **more):
    environment = {**os.environ, "GROUND_CONTROL_DATA": str(folder), **more}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    code = "from config import settings as s; print(s.SECRET_KEY, s.PSEUDONYM_KEY)"
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    ).stdout.split()


def test_an_installation_from_before_keeps_its_pseudonyms(tmp_path):
    new = keys_of(tmp_path)
    assert new[0] != new[1]
    assert keys_of(tmp_path) == new
    (tmp_path / "pseudonym_key").unlink()  # as it was before there was one
    old = keys_of(tmp_path)
    assert old[1] == old[0] == new[0]
    # Sessions get a new key, and the pseudonyms stay.
    assert keys_of(tmp_path, SECRET_KEY="k" * 40) == ["k" * 40, old[1]]
