"""What is installed and locked, under which licenses, and with which known faults: `make audit`.

Follows the dependencies of the project's extras through the installed packages, refuses a license
that is not on the list below, and writes a bill of materials (CycloneDX 1.6).

Known vulnerabilities of the locked versions come from a file of OSV records (`OSV=all.zip make audit`, the
export of the ecosystem PyPI, brought to a machine without access), or from pip-audit where it is installed,
strictly: what could not be checked is a failure.
"""

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

EXTRAS = ("web", "train")
# Words of licenses that allow use and redistribution without terms for our own code.
ALLOWED = re.compile(
    r"\b(MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla|Zlib|Unlicense|0BSD|HPND"
    r"|LGPL|Lesser General Public|CC0|BSL|Boost)\b",
    re.IGNORECASE,
)
# NVIDIA's libraries come with PyTorch on Linux, under terms that allow their use; not redistributed.
NOT_OURS = re.compile(r"^(nvidia-|cuda-|triton)")


def dependencies(root: str = "ground-control") -> dict[str, Distribution]:
    """Every installed package that the extras of `root` need, by name."""
    found: dict[str, Distribution] = {}
    waiting = [(root, frozenset(EXTRAS))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform or Python
        if name != root:
            found[name] = package
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker is None or any(
                need.marker.evaluate({"extra": extra}) for extra in extras or {""}
            ):
                waiting.append((canonicalize_name(need.name), frozenset(need.extras)))
    return dict(sorted(found.items()))


def license_of(package: Distribution) -> str:
    """The license that the package's own metadata names, in one line."""
    meta = package.metadata
    given = meta.get("License-Expression") or ""
    classifiers = [
        value.rpartition(" :: ")[2]
        for value in meta.get_all("Classifier") or []
        if value.startswith("License ::")
    ]
    text = given or "; ".join(classifiers) or (meta.get("License") or "")
    return " ".join(text.split())[:120] or "not named"


def bill_of_materials(packages: dict[str, Distribution]) -> dict[str, object]:
    """CycloneDX 1.6: each package with version, license and package URL."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "ground-control"}},
        "components": [
            {
                "type": "library",
                "name": name,
                "version": package.version,
                "purl": f"pkg:pypi/{name}@{package.version}",
                "bom-ref": f"pkg:pypi/{name}@{package.version}",
                "licenses": [{"license": {"name": license_of(package)}}],
            }
            for name, package in packages.items()
        ],
    }


def refused_licenses(packages: dict[str, Distribution]) -> list[str]:
    return [
        f"{name} {package.version}: {license_of(package)}"
        for name, package in packages.items()
        if not ALLOWED.search(license_of(package)) and not NOT_OURS.match(name)
    ]


def locked(path: Path) -> dict[str, list[str]]:
    """The versions that a lock file allows of each package; several where platforms differ."""
    versions: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), []).append(version)
    return versions


def osv_faults(records: Path, packages: dict[str, list[str]]) -> list[str]:
    """Records of an OSV export (a zip, or a folder of JSON files) that affect one of the versions."""
    return [
        f"{name} {version}: {record['id']}: {record.get('summary', '')}".rstrip(": ")
        for record in _osv_records(records)
        if not record.get("withdrawn")
        for affected in record.get("affected", [])
        if affected.get("package", {}).get("ecosystem") == "PyPI"
        for name in [canonicalize_name(affected["package"]["name"])]
        for version in packages.get(name, [])
        if _is_affected(version, affected)
    ]


def _osv_records(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_dir():
        for file in sorted(path.glob("*.json")):
            yield json.loads(file.read_text())
        return
    with zipfile.ZipFile(path) as packed:
        for name in packed.namelist():
            if name.endswith(".json"):
                yield json.loads(packed.read(name))


def _is_affected(version: str, affected: dict[str, Any]) -> bool:
    """By the list of versions, or by a range: introduced ≤ version < fixed, or ≤ last_affected."""
    if version in affected.get("versions", []):
        return True
    own = Version(version)
    for span in affected.get("ranges", []):
        if span.get("type") != "ECOSYSTEM":
            continue
        inside = False
        for event in span.get("events", []):
            try:
                if "introduced" in event and own >= Version(event["introduced"]):
                    inside = True
                elif ("fixed" in event and own >= Version(event["fixed"])) or (
                    "last_affected" in event and own > Version(event["last_affected"])
                ):
                    inside = False
            except InvalidVersion:
                return True  # nobody can say that it is not
        if inside:
            return True
    return False


def known_faults(lock: Path, records: Path | None) -> int:
    """0 for none, and for a machine where nothing can be asked, which is said."""
    if records is not None:
        packages = locked(lock)
        faults = osv_faults(records, packages)
        for line in faults:
            print(f"Known vulnerability: {line}")
        print(f"{len(packages)} locked packages compared with {records}.")
        return 1 if faults else 0
    if importlib.util.find_spec("pip_audit") is None:
        print(
            "No OSV file was given and pip-audit is not installed: known vulnerabilities were NOT checked."
        )
        return 0
    options = ["--strict", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "-r", str(lock), *options]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sbom", type=Path, default=Path("var/sbom.json"))
    parser.add_argument("--lock", type=Path, default=Path("requirements.lock"))
    parser.add_argument("--osv", type=Path, default=os.environ.get("OSV") or None)
    options = parser.parse_args()
    packages = dependencies()
    options.sbom.parent.mkdir(parents=True, exist_ok=True)
    options.sbom.write_text(json.dumps(bill_of_materials(packages), indent=1) + "\n")
    refused = refused_licenses(packages)
    for line in refused:
        print(f"License not on the list: {line}")
    faults = known_faults(options.lock, options.osv)
    print(f"{len(packages)} packages, {len(refused)} licenses to look at; {options.sbom} written.")
    return 1 if refused or faults else 0


if __name__ == "__main__":
    sys.exit(main())
