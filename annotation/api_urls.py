from django.urls import path

from annotation.api import (
    agreement,
    assignment,
    batches,
    data,
    exports,
    judge,
    projects,
    pushes,
    quality,
    versions,
)

urlpatterns = [
    # First what is asked most: addresses are tried in this order.
    path("projects/<slug:slug>/judging/next/", judge.judging_next, name="judging_next"),
    path("projects/<slug:slug>/judging/undo/", judge.judging_undo, name="judging_undo"),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/submit/",
        judge.judging_submit,
        name="judging_submit",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/skip/",
        judge.judging_skip,
        name="judging_skip",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/draft/",
        judge.judging_draft,
        name="judging_draft",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/renew/",
        judge.judging_renew,
        name="judging_renew",
    ),
    path(
        "projects/<slug:slug>/judging/<uuid:uid>/release/",
        judge.judging_release,
        name="judging_release",
    ),
    path("projects/", projects.ProjectList.as_view(), name="projects"),
    path("projects/<slug:slug>/prompts/", data.PromptList.as_view(), name="prompts"),
    path("projects/<slug:slug>/judgments/", data.judgments, name="judgments"),
    path("projects/<slug:slug>/ratings/", data.ratings, name="ratings"),
    path("projects/<slug:slug>/demonstrations/", data.demonstrations, name="demonstrations"),
    path("projects/<slug:slug>/agreement/", agreement.project_agreement, name="agreement"),
    path("projects/<slug:slug>/quality/", quality.annotators, name="quality"),
    path("projects/<slug:slug>/quality/votes/", quality.votes, name="quality_votes"),
    path("projects/<slug:slug>/snapshots/", data.SnapshotList.as_view(), name="snapshots"),
    path("projects/<slug:slug>/snapshots/<int:version>/", data.snapshot_detail, name="snapshot"),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/diff/<int:other>/",
        versions.snapshot_diff,
        name="snapshot_diff",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/verify/",
        versions.snapshot_verify,
        name="snapshot_verify",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/deprecation/",
        versions.snapshot_deprecation,
        name="snapshot_deprecation",
    ),
    path("projects/<slug:slug>/withdrawals/", versions.withdrawal_list, name="withdrawals"),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/archive/",
        data.snapshot_archive,
        name="snapshot_archive",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/files/<str:name>",
        data.snapshot_file,
        name="snapshot_file",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/forms/",
        exports.snapshot_forms,
        name="snapshot_forms",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/forms/<slug:form>/",
        exports.snapshot_form,
        name="snapshot_form",
    ),
    path(
        "projects/<slug:slug>/snapshots/<int:version>/pushes/",
        pushes.snapshot_pushes,
        name="snapshot_pushes",
    ),
    path("projects/<slug:slug>/batches/", batches.BatchList.as_view(), name="batches"),
    path("projects/<slug:slug>/batches/<int:pk>/", batches.batch_detail, name="batch"),
    path(
        "projects/<slug:slug>/batches/<int:pk>/comparisons/",
        batches.batch_comparisons,
        name="batch_comparisons",
    ),
    path("projects/<slug:slug>/batches/<int:pk>/open/", batches.batch_open, name="batch_open"),
    path("projects/<slug:slug>/batches/<int:pk>/close/", batches.batch_close, name="batch_close"),
    path(
        "projects/<slug:slug>/assignment/",
        assignment.assignment_rules,
        name="assignment_rules",
    ),
    path(
        "projects/<slug:slug>/assignment/people/<str:username>/",
        assignment.assignment_person,
        name="assignment_person",
    ),
    path(
        "projects/<slug:slug>/assignment/batches/<int:pk>/",
        assignment.assignment_batch,
        name="assignment_batch",
    ),
    path(
        "projects/<slug:slug>/assignment/batches/<int:pk>/scores/",
        assignment.assignment_scores,
        name="assignment_scores",
    ),
]
