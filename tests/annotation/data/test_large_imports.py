"""Large files: little memory, written in steps, stopped and continued without a doubled row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from annotation.data import imports
from annotation.data.import_writing import Writer
from annotation.data.imports import import_in_steps
from annotation.models import Judgment, Prompt, Source

SOURCE = {"name": "Written for the tests", "licence": "CC0-1.0", "url": ""}

READ_AND_MEASURE = """
import resource, sys
from pathlib import Path
import django
django.setup()
from annotation.data.import_formats.items import read_items
from annotation.data.import_formats.report import ImportReport
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def read(path):
    report = ImportReport()
    n = sum(1 for _ in read_items(Path(path), report, axis="helpfulness", axes=["helpfulness"]))
    assert report.ok, report.problems
    return n
read(sys.argv[1])
before = peak()
n = read(sys.argv[2])
print(n, (peak() - before) // 1024)
"""


def pairs(n, path, size=900):
    with path.open("w") as file:
        for number in range(n):
            row = {
                "prompt": f"Question {number}?",
                "chosen": f"{number} yes",
                "rejected": "x" * size,
            }
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.parametrize("kind", ["lines", "array"])
def test_a_file_is_read_in_the_memory_of_a_few_rows(tmp_path, kind):
    small, large = pairs(10, tmp_path / "small"), pairs(40_000, tmp_path / "large")
    if kind == "array":
        text = large.read_text().strip().replace("\n", ",\n")
        large.write_text(f"[{text}]")
    assert large.stat().st_size > 35 * 2**20
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}
    command = [sys.executable, "-c", READ_AND_MEASURE, str(small), str(large)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    n, growth = map(int, done.stdout.split())
    assert n == 40_000
    assert growth < 12, f"{growth} MiB"


@pytest.mark.django_db
def test_an_import_that_was_stopped_goes_on_and_doubles_nothing(
    project, rita, tmp_path, monkeypatch
):
    monkeypatch.setattr(imports, "CHUNK", 20)
    path = pairs(50, tmp_path / "pairs.jsonl", size=5)
    write = Writer.write

    def stop(self, items):
        if Judgment.objects.count() >= 20:
            raise KeyboardInterrupt
        write(self, items)

    monkeypatch.setattr(Writer, "write", stop)
    given = {"source": SOURCE, "by": rita, "sign_off": True}
    with pytest.raises(KeyboardInterrupt):
        import_in_steps(project, path, **given)
    assert (Judgment.objects.count(), Source.objects.get().is_signed_off) == (20, False)
    monkeypatch.setattr(Writer, "write", write)
    report = import_in_steps(project, path, **given)
    assert (report.n_imported, report.n_duplicates) == (30, 20)
    assert Source.objects.get().is_signed_off
    again = import_in_steps(project, path, **given)
    assert (again.n_imported, Judgment.objects.current().count()) == (0, 50)
    assert Source.objects.count() == 1


@pytest.mark.django_db
def test_the_command_imports_any_file_and_writes_down_what_it_refused(
    project, grace, tmp_path, capsys
):
    path, refused = tmp_path / "rows.csv", tmp_path / "refused.csv"
    path.write_text("frage,gut,schlecht\nWhy?,So.,No.\n=HYPERLINK(),Same.,Same. \n ,a,b\n")
    given = ["import_file", "apollo", str(path), "--source", "x", "--licence", "CC0-1.0"]
    given += ["--column", "frage=prompt", "--column", "gut=chosen", "--column", "schlecht=rejected"]
    given += ["--by", "grace", "--refused", str(refused)]
    with pytest.raises(CommandError, match="Nothing was imported: 1 problems"):
        call_command(*given)
    assert Prompt.objects.count() == 0
    for more in ([], ["--in-steps"]):
        call_command(*given, "--good-rows", *more)
    assert "Imported 1 items" in capsys.readouterr().out
    assert Prompt.objects.count() == 1
    assert len(Path(refused).read_text().splitlines()) == 2
