"""`manage.py rotate_pseudonyms PROJECT`: other names for its people in what is exported from now on."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from annotation.data.pseudonyms import rotate_pseudonyms
from annotation.models import Project


class Command(BaseCommand):
    help = (
        "Give the people of a project other pseudonyms in everything that is exported from now on. "
        "Frozen versions keep theirs. The former key is forgotten: this can't be undone."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("projects", nargs="*", metavar="PROJECT", help="slugs")
        parser.add_argument("--all", action="store_true", help="every project")

    def handle(self, *args: Any, **options: Any) -> None:
        slugs = options["projects"]
        if bool(slugs) == options["all"]:
            raise CommandError("Name projects, or give --all.", returncode=2)
        projects = {p.slug: p for p in Project.objects.all() if options["all"] or p.slug in slugs}
        for slug in slugs:
            if slug not in projects:
                raise CommandError(f"There is no project “{slug}”.", returncode=2)
        for slug, project in projects.items():
            self.stdout.write(f"{slug}: generation {rotate_pseudonyms(project)}")
