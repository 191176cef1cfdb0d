"""Rotating the pseudonyms of a project: people get new names in everything that is exported from now on.

The key of a generation is PSEUDONYM_KEY with the generation's salt. The salt of an earlier generation is
forgotten, so that nobody, not even with the key, can compute an earlier name again; versions keep the
names that they were frozen with.
"""

import secrets
from typing import Any

from django.db import transaction

from annotation.lib.pseudonyms import keyed_hash
from annotation.models import Event, Project


def pseudonym_key(project: Project) -> dict[str, Any]:
    """`{"generation", "key"}`: which key pseudonyms are made with. `key` tells two keys apart, and
    nothing can be computed from it."""
    fingerprint = keyed_hash(f"annotation.pseudonyms{project.pseudonym_salt}", "fingerprint")[:8]
    return {"generation": project.pseudonym_generation, "key": fingerprint}


def rotate_pseudonyms(project: Project, by: Any = None) -> int:
    """Give the project's people other pseudonyms from now on; returns the new generation."""
    with transaction.atomic():
        locked = Project.objects.lock(project.pk)
        locked.pseudonym_generation += 1
        locked.pseudonym_salt = secrets.token_urlsafe(32)
        locked.save(update_fields=["pseudonym_generation", "pseudonym_salt"])
        Event.record(locked, by, "rotated pseudonyms", f"generation {locked.pseudonym_generation}")
    project.pseudonym_generation = locked.pseudonym_generation
    project.pseudonym_salt = locked.pseudonym_salt
    return locked.pseudonym_generation
