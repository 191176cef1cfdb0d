from django.urls import path

from annotation.api import assignment as assignment_api
from annotation.api import batches as batches_api
from annotation.api import data as api
from annotation.api import judge as judging_api
from annotation.api import quality as quality_api

urlpatterns = [
    # First what is asked most: addresses are tried in this order.
    path("projects/<slug:slug>/judging/next/", judging_api.judging_next, name="judging_next"),
    path("projects/<slug:slug>/judging/undo/", judging_api.judging_undo, name="judging_undo"),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/submit/",
        judging_api.judging_submit,
        name="judging_submit",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/skip/",
        judging_api.judging_skip,
        name="judging_skip",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/draft/",
        judging_api.judging_draft,
        name="judging_draft",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/renew/",
        judging_api.judging_renew,
        name="judging_renew",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/release/",
        judging_api.judging_release,
        name="judging_release",
    ),
    path("projects/", api.ProjectList.as_view(), name="projects"),
    path("projects/<slug:slug>/prompts/", api.PromptList.as_view(), name="prompts"),
    path("projects/<slug:slug>/judgments/", api.judgments, name="judgments"),
    path("projects/<slug:slug>/ratings/", api.ratings, name="ratings"),
    path("projects/<slug:slug>/demonstrations/", api.demonstrations, name="demonstrations"),
    path("projects/<slug:slug>/agreement/", api.project_agreement, name="agreement"),
    path("projects/<slug:slug>/quality/", quality_api.annotators, name="quality"),
    path("projects/<slug:slug>/quality/votes/", quality_api.votes, name="quality_votes"),
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
    path("projects/<slug:slug>/batches/", batches_api.BatchList.as_view(), name="batches"),
    path("projects/<slug:slug>/batches/<int:pk>/", batches_api.batch_detail, name="batch"),
    path(
        "projects/<slug:slug>/batches/<int:pk>/comparisons/",
        batches_api.batch_comparisons,
        name="batch_comparisons",
    ),
    path("projects/<slug:slug>/batches/<int:pk>/open/", batches_api.batch_open, name="batch_open"),
    path(
        "projects/<slug:slug>/batches/<int:pk>/close/", batches_api.batch_close, name="batch_close"
    ),
    path(
        "projects/<slug:slug>/assignment/",
        assignment_api.assignment_rules,
        name="assignment_rules",
    ),
    path(
        "projects/<slug:slug>/assignment/people/<str:username>/",
        assignment_api.assignment_person,
        name="assignment_person",
    ),
    path(
        "projects/<slug:slug>/assignment/batches/<int:pk>/",
        assignment_api.assignment_batch,
        name="assignment_batch",
    ),
    path(
        "projects/<slug:slug>/assignment/batches/<int:pk>/scores/",
        assignment_api.assignment_scores,
        name="assignment_scores",
    ),
]
