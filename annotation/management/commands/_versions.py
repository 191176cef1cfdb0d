"""What the commands about frozen versions share: naming a project and its versions."""

from django.core.management.base import CommandError

from annotation.models import Project, Snapshot


def project_named(slug: str) -> Project:
    project = Project.objects.filter(slug=slug).first()
    if project is None:
        raise CommandError(f"There is no project “{slug}”.", returncode=2)
    return project


def version_of(project: Project, version: int) -> Snapshot:
    snapshot = project.snapshots.filter(version=version).first()
    if snapshot is None:
        raise CommandError(f"{project.slug} has no version {version}.", returncode=2)
    return snapshot
