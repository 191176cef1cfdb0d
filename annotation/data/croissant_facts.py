"""What `croissant.json` says about a frozen version: every field from the product's own records."""

from typing import Any

from annotation.data.dataset_card import agreement_sentence, collection_sentences
from annotation.data.dataset_terms import citation, filter_lines, limits
from annotation.data.licences import licence_of
from annotation.models import Snapshot
from annotation.protocols import called

# What the first versions of the product did not count.
NONE: dict[str, Any] = {
    "judgments": 0,
    "judgments_simulated": 0,
    "prompts": 0,
    "annotators": 0,
    "simulated_annotators": 0,
    "left_out": {},
}


def croissant_facts(snapshot: Snapshot) -> dict[str, Any]:
    """`{"files", "about", "responsible_ai"}` for `annotation.data.exports.croissant`."""
    name = f"{snapshot.project.slug}-v{snapshot.version}"
    about = {
        "name": name,
        "description": snapshot.note or "Human preferences between responses of language models.",
        "version": f"{snapshot.version}.0.0",
        "datePublished": snapshot.created_at.date().isoformat(),
        "license": _licenses(snapshot),
        "creator": {"@type": "Organization", "name": str(snapshot.project.name)},
        "citeAs": citation(snapshot),
        "url": f"urn:uuid:{snapshot.uid}",
    }
    return {
        "files": snapshot.files,
        "about": about,
        "responsible_ai": _responsible_ai(snapshot),
    }


def _licenses(snapshot: Snapshot) -> list[str]:
    """Addresses of the licenses that the table knows; others by the name that was given."""
    licenses = []
    for entry in snapshot.licences:
        row = licence_of(entry["licence"])
        text = f"https://spdx.org/licenses/{row.spdx}" if row else entry["licence"] or "not stated"
        if text not in licenses:
            licenses.append(text)
    return licenses


def _responsible_ai(snapshot: Snapshot) -> dict[str, Any]:
    counts = NONE | snapshot.counts
    left_out = counts["left_out"]
    return {
        "dataCollection": " ".join(collection_sentences(snapshot)),
        "dataCollectionType": "Experiments" if counts["annotators"] else "Others",
        "dataAnnotationProtocol": [
            f"{axis['name']}: {axis['question']}" for axis in snapshot.project.axes
        ],
        "dataAnnotationPlatform": "Ground Control",
        "dataAnnotationAnalysis": [
            f"{called(measure)}: {agreement_sentence(measure, figures)}"
            for measure, figures in snapshot.agreement.items()
        ],
        "annotationsPerItem": f"{counts['judgments'] / max(1, counts['prompts']):.2f} judgments a prompt",
        "annotatorDemographics": (
            f"{counts['annotators']} people, {counts['simulated_annotators']} simulated annotators. "
            "Nothing about them was collected."
        ),
        "machineAnnotationTools": (
            f"{counts['simulated_annotators']} simulated annotators (programs) made "
            f"{counts['judgments_simulated']} judgments."
            if counts["simulated_annotators"]
            else ""
        ),
        "dataPreprocessingProtocol": [
            f"{n} judgments left out: {reason.replace('_', ' ')}"
            for reason, n in left_out.items()
            if n
        ],
        "personalSensitiveInformation": [
            line.replace("**", "")
            for line in filter_lines(snapshot)
            if line.startswith("**Personal data**")
        ]
        or ["The texts were not searched for personal data. Annotators have pseudonyms."],
        "dataLimitations": limits(snapshot),
        "dataUseCases": "Training and evaluating reward models and preference optimization.",
        "dataReleaseMaintenancePlan": "A version never changes; corrections come as a new version.",
    }
