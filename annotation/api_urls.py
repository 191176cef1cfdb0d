from django.urls import path

from annotation import api

urlpatterns = [
    path("projects/", api.ProjectList.as_view(), name="projects"),
    path("projects/<slug:slug>/prompts/", api.PromptList.as_view(), name="prompts"),
    path("projects/<slug:slug>/judgments/", api.judgments, name="judgments"),
    path("projects/<slug:slug>/agreement/", api.project_agreement, name="agreement"),
    path("projects/<slug:slug>/snapshots/", api.SnapshotList.as_view(), name="snapshots"),
    path("projects/<slug:slug>/snapshots/<int:version>/", api.snapshot_detail, name="snapshot"),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/archive/",
        api.snapshot_archive,
        name="snapshot_archive",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/files/<str:name>",
        api.snapshot_file,
        name="snapshot_file",
    ),
]
