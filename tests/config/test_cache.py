"""The cache: JSON only, limits that nothing pushes out, and keys of one installation."""

import pickle
import subprocess
import sys
import time

import numpy as np
import pytest

from annotation.quality.assessment import assessment_of, reliability_of
from config.cache_json import JsonSerializer
from config.file_cache import FileCache
from tests.factories import judged


@pytest.fixture
def cache(tmp_path):
    return FileCache(str(tmp_path / "cache"), {"OPTIONS": {"MAX_ENTRIES": 20}})


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        7,
        1.5,
        "text",
        [1.0, 2.0],
        (1, "a", None),
        [("axis", 3, 1, 2), ("axis", 4, 1, 2)],
        {"a": [1, {"b": (2,)}]},
        {3: "c", (1, 2): {"@": "x"}},
        {"@": "dict"},
    ],
)
def test_a_value_comes_back_as_it_was(value):
    serializer = JsonSerializer()
    stored = serializer.dumps(value)
    assert serializer.loads(stored if isinstance(stored, bytes) else b"%d" % stored) == value


def test_arrays_come_back_bit_for_bit():
    serializer = JsonSerializer()
    for array in (np.random.default_rng(1).random((3, 2)), np.arange(4), np.array([True])):
        back = serializer.loads(serializer.dumps(array))
        assert back.dtype == array.dtype
        assert np.array_equal(back, array)


class Planted:
    def __reduce__(self):
        return (print, ("ran",))


def test_nothing_that_is_read_runs(cache, capsys):
    serializer = JsonSerializer()
    for planted in (pickle.dumps(Planted()), b'{"@": "Popen", "fields": {}}', b"{", b""):
        assert serializer.loads(planted) is None
    cache.set("a", 1)
    (path,) = cache.folder.glob("*/*.json")
    path.write_bytes(b"99999999999\n" + pickle.dumps(Planted()))
    assert cache.get("a", "nothing") == "nothing"
    assert capsys.readouterr().out == ""
    with pytest.raises(TypeError, match="Planted"):
        cache.set("a", Planted())


@pytest.mark.django_db
def test_figures_about_people_come_back_whole(project, ada, ben, settings, tmp_path):
    for number in range(10):
        comparison = judged(project, by=ada, ranks=(1, 2, 3, 4)).comparison
        judged(
            project,
            by=ben,
            comparison=comparison,
            ranks=(2, 1, 3, 4) if number % 3 else (1, 2, 3, 4),
        )
    serializer = JsonSerializer()
    quality = reliability_of(project)
    back = serializer.loads(serializer.dumps(quality))
    assert back.profiles == quality.profiles
    assert back.pairs.items == quality.pairs.items
    assert np.array_equal(back.pairs.label, quality.pairs.label)
    axis, comparison = quality.pairs.items[0][:2]
    assert back.consensus(axis, comparison) == quality.consensus(axis, comparison)
    assessment, _ = assessment_of(project)
    back = serializer.loads(serializer.dumps(assessment))
    assert back.profiles == assessment.profiles
    assert back.agreement == assessment.agreement


def test_values_never_push_out_a_limit(cache):
    cache.set("allauth:rl:login_failed:ada", [time.time()], 300)
    cache.set("throttle_user_1", [time.time()], 300)
    for number in range(100):
        cache.set(f"value{number}", number, 300)
    cache.sweep()
    assert cache.get("allauth:rl:login_failed:ada")
    assert cache.get("throttle_user_1")
    assert sum(cache.get(f"value{number}") is not None for number in range(100)) == 20


def test_an_entry_runs_out_and_a_lock_is_given_once(cache, monkeypatch):
    assert cache.add("lock", True, 10)
    assert not cache.add("lock", True, 10)
    cache.set("a", 1, 10)
    assert cache.touch("a", 100)
    assert cache.incr("a") == 2
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 50)
    assert cache.add("lock", True, 10)
    assert cache.get("a") == 2
    monkeypatch.setattr(time, "time", lambda: now + 500)
    assert cache.get("a") is None
    cache.sweep()
    assert list(cache.folder.glob("*/*.json")) == []
    assert not cache.delete("a")


def test_of_several_that_add_at_once_one_succeeds(cache, monkeypatch):
    """Also where another process adds it between the look at an entry and its removal."""
    for lifetime in (None, -1):  # no entry before, and one that has run out
        cache.clear()
        if lifetime:
            cache.set("lock", 0, timeout=lifetime)
        read, others = FileCache._read, []

        def read_then_lose_the_race(self, path, read=read, others=others):
            data = read(self, path)
            if not others:
                others.append(None)
                others.append(cache.add("lock", 1, timeout=60))
            return data

        with monkeypatch.context() as patch:
            patch.setattr(FileCache, "_read", read_then_lose_the_race)
            mine = cache.add("lock", 2, timeout=60)
        assert (others[1], mine) == (True, False)
        assert cache.get("lock") == 1


STARTED = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django; django.setup()
from django.core.cache import cache
from django.core.management import call_command
from config.celery import app
call_command("migrate", verbosity=0)
cache.set("a", 1)
print(cache.make_key("a"), app.conf.broker_transport_options, app.conf.worker_enable_remote_control)
"""


def test_a_fresh_installation_shows_its_files_to_nobody_else(tmp_path, monkeypatch):
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    monkeypatch.setenv("GROUND_CONTROL_DATA", str(data))
    monkeypatch.setenv("INSTALLATION", "lab-7")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://127.0.0.1:1/0")
    out = subprocess.run(
        [sys.executable, "-c", STARTED], capture_output=True, text=True, check=True, umask=0o022
    ).stdout
    assert out.split() == ["lab-7:1:a", "{'global_keyprefix':", "'lab-7:'}", "False"]
    made = [data, *data.rglob("*")]
    assert {path.name for path in made} > {"db.sqlite3", "secret_key", "json"}
    assert [path for path in made if path.stat().st_mode & 0o077] == []
