"""The audit of dependencies: what is needed, its licenses, and the bill of materials."""

import runpy
from types import SimpleNamespace

from django.conf import settings

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
