"""A backup is encrypted in the pipe, restores whole or not at all, and opens with its key alone."""

import os
import shutil
import sqlite3
import subprocess
import sys

import pytest
from django.conf import settings

AGE = shutil.which("age")
pytestmark = pytest.mark.skipif(AGE is None, reason="needs age")
MANAGE = f"{sys.executable} manage.py"


def shell(command, folder, **more):
    environment = {**os.environ, "GROUND_CONTROL_DATA": str(folder), **more}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=settings.BASE_DIR,
        env=environment,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def backup(tmp_path_factory):
    """(folder, recipient) with backup.age of an installation that knows ada."""
    folder = tmp_path_factory.mktemp("backup")
    data = folder / "data"
    made = shell(
        f"{MANAGE} migrate -v 0 && {MANAGE} shell -v 0 -c 'from annotation.models import User; "
        'User.objects.create_user("ada", password="a long enough password")\'',
        data,
    )
    assert made.returncode == 0, made.stderr
    (data / "runs" / "one").mkdir(parents=True)
    (data / "runs" / "one" / "result.json").write_text("words of ada")
    subprocess.run(["age-keygen", "-o", folder / "key"], check=True, capture_output=True)
    keygen = subprocess.run(["age-keygen", "-y", folder / "key"], capture_output=True, check=True)
    recipient = keygen.stdout.decode().strip()
    written = shell(f"{MANAGE} backup | age -r {recipient} > {folder}/backup.age", data)
    assert written.returncode == 0, written.stderr
    return folder


def names(data):
    with sqlite3.connect(data / "db.sqlite3") as database:
        return {name for (name,) in database.execute("SELECT username FROM annotation_user")}


def test_it_comes_back_whole_with_its_keys_and_closed_to_others(backup, tmp_path):
    assert b"words of ada" not in (backup / "backup.age").read_bytes()
    data = tmp_path / "new"
    done = shell(f"age -d -i {backup}/key {backup}/backup.age | {MANAGE} restore", data)
    assert done.returncode == 0, done.stderr
    assert names(data) == {"ada"}
    assert (data / "runs/one/result.json").read_text() == "words of ada"
    for name in ("secret_key", "pseudonym_key", "mfa_key"):
        assert (data / name).read_bytes() == (backup / "data" / name).read_bytes()
    assert (data / "db.sqlite3").stat().st_mode & 0o077 == 0
    again = shell(f"age -d -i {backup}/key {backup}/backup.age | {MANAGE} restore", data)
    assert b"has tables" in again.stderr  # never over what there is


def test_with_another_key_or_cut_off_nothing_is_restored(backup, tmp_path):
    subprocess.run(["age-keygen", "-o", tmp_path / "other"], check=True, capture_output=True)
    data = tmp_path / "new"
    done = shell(f"age -d -i {tmp_path}/other {backup}/backup.age | {MANAGE} restore", data)
    assert done.returncode != 0
    done = shell(
        f"age -d -i {backup}/key {backup}/backup.age | head -c 300000 | {MANAGE} restore", data
    )
    assert done.returncode != 0
    assert not (data / "runs").exists()
    with sqlite3.connect(data / "db.sqlite3") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == []


def test_it_is_not_written_readable_by_mistake(backup):
    done = shell(f"{MANAGE} backup > {backup}/plain.tar", backup / "data")
    assert done.returncode == 2
    assert b"--plain" in done.stderr
    assert (backup / "plain.tar").stat().st_size == 0
