"""What is installed, under which licenses, and with which known faults: `make audit`.

Follows the dependencies of the project's extras through the installed packages, refuses a license
that is not on the list below, and writes a bill of materials (CycloneDX 1.6). With pip-audit installed
it asks for known vulnerabilities as well, strictly: what could not be checked is a failure.
"""

import argparse
import importlib.util
import json
import re
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def known_faults() -> int:
    """pip-audit's answer: 0 for none, and for a machine without pip-audit, which is said."""
    if importlib.util.find_spec("pip_audit") is None:
        print("pip-audit is not installed: known vulnerabilities were NOT checked.")
        return 0
    command = [sys.executable, "-m", "pip_audit", "--strict", "--skip-editable", "--local"]
    return subprocess.run(command, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sbom", type=Path, default=Path("var/sbom.json"))
    options = parser.parse_args()
    packages = dependencies()
    options.sbom.parent.mkdir(parents=True, exist_ok=True)
    options.sbom.write_text(json.dumps(bill_of_materials(packages), indent=1) + "\n")
    refused = refused_licenses(packages)
    for line in refused:
        print(f"License not on the list: {line}")
    faults = known_faults()
    print(f"{len(packages)} packages, {len(refused)} licenses to look at; {options.sbom} written.")
    return 1 if refused or faults else 0


if __name__ == "__main__":
    sys.exit(main())
