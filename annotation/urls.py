from django.urls import path

from annotation.pages import account as own_views
from annotation.pages import assignment as assignment_views
from annotation.pages import campaigns as campaign_views
from annotation.pages import data as data_views
from annotation.pages import dialogues as dialogue_views
from annotation.pages import quality as quality_views
from annotation.pages import views

urlpatterns = [
    path("", views.home, name="home"),
    path("account/tokens/", data_views.token_list, name="tokens"),
    path("account/tokens/<str:prefix>/revoke/", data_views.token_revoke, name="token_revoke"),
    path("account/preferences/", own_views.preferences, name="preferences"),
    path("account/shortcuts/", views.shortcuts, name="shortcuts"),
    path("projects/new/", views.project_new, name="project_new"),
    path("projects/<slug:slug>/", views.project, name="project"),
    path("projects/<slug:slug>/settings/", views.project_settings, name="project_settings"),
    path("projects/<slug:slug>/guidelines/", own_views.guidelines, name="guidelines"),
    path(
        "projects/<slug:slug>/guidelines/seen/", own_views.guidelines_seen, name="guidelines_seen"
    ),
    path(
        "projects/<slug:slug>/assignment/",
        assignment_views.assignment_rules,
        name="assignment_rules",
    ),
    path("projects/<slug:slug>/batches/new/", campaign_views.campaign_new, name="campaign_new"),
    path(
        "projects/<slug:slug>/batches/<int:pk>/close/",
        campaign_views.campaign_close,
        name="campaign_close",
    ),
    path(
        "projects/<slug:slug>/batches/<int:pk>/open/",
        campaign_views.campaign_open,
        name="campaign_open",
    ),
    path("projects/<slug:slug>/judge/", views.judge, name="judge"),
    path("projects/<slug:slug>/judge/undo/", views.judge_undo, name="judge_undo"),
    path("projects/<slug:slug>/judge/history/", views.history, name="history"),
    path("projects/<slug:slug>/judge/<uuid:uid>/", views.judge_one, name="judge_one"),
    path("projects/<slug:slug>/judge/<uuid:uid>/after/", views.judge_after, name="judge_after"),
    path("projects/<slug:slug>/dialogue/", dialogue_views.dialogues, name="dialogues"),
    path("projects/<slug:slug>/dialogue/<uuid:uid>/", dialogue_views.dialogue, name="dialogue"),
    path(
        "projects/<slug:slug>/dialogue/<uuid:uid>/state/",
        dialogue_views.dialogue_state,
        name="dialogue_state",
    ),
    path(
        "projects/<slug:slug>/dialogue/<uuid:uid>/stream/",
        dialogue_views.dialogue_stream,
        name="dialogue_stream",
    ),
    path("projects/<slug:slug>/progress/", quality_views.my_progress, name="my_progress"),
    path("projects/<slug:slug>/quality/", quality_views.quality_page, name="quality"),
    path(
        "projects/<slug:slug>/quality/people/<int:pk>/",
        quality_views.quality_person,
        name="quality_person",
    ),
    path("projects/<slug:slug>/quality/gold/", quality_views.gold_items, name="gold_items"),
    path("projects/<slug:slug>/review/", quality_views.review_queue, name="review_queue"),
    path("projects/<slug:slug>/review/<uuid:uid>/", quality_views.review_case, name="review_case"),
    path("projects/<slug:slug>/prompts/", data_views.prompts, name="prompts"),
    path("projects/<slug:slug>/prompts/import/", data_views.prompt_import, name="prompt_import"),
    path(
        "projects/<slug:slug>/sources/<int:pk>/sign-off/",
        data_views.source_sign_off,
        name="source_sign_off",
    ),
    path("projects/<slug:slug>/data/", data_views.snapshots, name="snapshots"),
    path("projects/<slug:slug>/data/<int:version>/", data_views.snapshot, name="snapshot"),
    path(
        "projects/<slug:slug>/data/<int:version>/files/<str:name>",
        data_views.snapshot_download,
        name="snapshot_download",
    ),
    path(
        "projects/<slug:slug>/data/<int:version>/archive.zip",
        data_views.snapshot_archive,
        name="snapshot_archive",
    ),
    path(
        "projects/<slug:slug>/data/<int:version>/<str:axis>.csv",
        data_views.snapshot_csv,
        name="snapshot_csv",
    ),
]
