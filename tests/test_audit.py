"""The audit of dependencies: what is needed, its licenses, and the bill of materials."""

import json
import re
import runpy
import tomllib
import zipfile
from types import SimpleNamespace

import pytest
from django.conf import settings
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

AUDIT = runpy.run_path(str(settings.BASE_DIR / "tools" / "audit.py"))


def test_every_license_of_what_is_needed_is_on_the_list():
    packages = AUDIT["dependencies"]()
    assert {"django", "torch", "celery", "sqlparse"} <= set(packages)
    assert AUDIT["refused_licenses"](packages) == []
    bill = AUDIT["bill_of_materials"](packages)
    assert bill["bomFormat"] == "CycloneDX"
    assert all(part["purl"].startswith("pkg:pypi/") for part in bill["components"])


def test_another_license_is_refused():
    meta = {"License-Expression": "AGPL-3.0-only"}
    package = SimpleNamespace(
        version="1", metadata=SimpleNamespace(get=meta.get, get_all=lambda name: None)
    )
    assert AUDIT["refused_licenses"]({"thing": package}) == ["thing 1: AGPL-3.0-only"]


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ("web", "train", "gguf")), ("requirements-web.lock", ("web",))],
)
def test_the_lock_has_every_requirement_with_hashes_and_no_host(lock, extras):
    text = (settings.BASE_DIR / lock).read_text()
    versions = AUDIT["locked"](settings.BASE_DIR / lock)
    project = tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]
    for extra in extras:
        for line in project["optional-dependencies"][extra]:
            need = Requirement(line)
            for version in versions[canonicalize_name(need.name)]:
                assert need.specifier.contains(version), f"{line}: `make lock`"
    entries = re.split(r"^(?=\S)", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 40
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "//" not in text
    assert ("torch" in versions) == ("train" in extras)


def osv(name, **affected):
    package = {"ecosystem": "PyPI", "name": name}
    return {"id": f"PYSEC-{name}", "summary": "bad", "affected": [{"package": package, **affected}]}


def test_a_file_of_known_vulnerabilities_is_compared_with_the_lock(tmp_path):
    def span(*events):
        return {"ranges": [{"type": "ECOSYSTEM", "events": list(events)}]}

    records = [
        osv("Django", **span({"introduced": "0"}, {"fixed": "5.2.20"})),
        osv("celery", **span({"introduced": "0"}, {"fixed": "5.0"})),
        osv("Pillow", versions=["1.0"]),
        osv("kombu", versions=["5.7.0"]),
        osv("amqp", **span({"introduced": "5"}, {"last_affected": "5.4.1"})),
        osv("vine", versions=["5.1.0"]) | {"withdrawn": "2026-01-01"},
    ]
    path = tmp_path / "all.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for number, record in enumerate(records):
            packed.writestr(f"{number}.json", json.dumps(record))
    packages = {
        "django": ["5.2.19"],
        "celery": ["5.7.0"],
        "kombu": ["5.7.0"],
        "amqp": ["5.4.2"],
        "vine": ["5.1.0"],
    }
    found = AUDIT["osv_faults"](path, packages)
    assert found == ["django 5.2.19: PYSEC-Django: bad", "kombu 5.7.0: PYSEC-kombu: bad"]
    lock = tmp_path / "requirements.lock"
    lock.write_text("django==5.2.19 \\\n    --hash=sha256:0\n")
    assert AUDIT["known_faults"](lock, path) == 1
    lock.write_text("django==5.2.20 \\\n    --hash=sha256:0\n")
    assert AUDIT["known_faults"](lock, path) == 0
