from django.urls import path

from rlhf import serving_views, views

urlpatterns = [
    path("projects/<slug:slug>/rounds/", views.rounds, name="rounds"),
    path("projects/<slug:slug>/rounds/launch/", views.launch, name="launch"),
    path("projects/<slug:slug>/rounds/base/", views.build_base, name="build_base"),
    path("projects/<slug:slug>/rounds/reward-models/", views.reward_round, name="reward_round"),
    path("projects/<slug:slug>/rounds/selection/", views.selection, name="selection"),
    path("projects/<slug:slug>/rounds/<int:number>/", views.round_detail, name="round"),
    path(
        "projects/<slug:slug>/rounds/<int:number>/metrics/<slug:stage>.json",
        views.metrics,
        name="metrics",
    ),
    path(
        "projects/<slug:slug>/rounds/<int:number>/metrics/<slug:stage>.csv",
        views.metrics_csv,
        name="metrics_csv",
    ),
    path("projects/<slug:slug>/rounds/<int:number>/samples/", views.samples, name="samples"),
    path(
        "projects/<slug:slug>/rounds/<int:number>/close/",
        views.close_annotation,
        name="close_annotation",
    ),
    path("projects/<slug:slug>/rounds/<int:number>/simulate/", views.simulate, name="simulate"),
    path(
        "projects/<slug:slug>/rounds/<int:number>/verdict/", views.give_verdict, name="give_verdict"
    ),
    path(
        "projects/<slug:slug>/rounds/<int:number>/cancel/", views.cancel_round, name="cancel_round"
    ),
    path("projects/<slug:slug>/rounds/<int:number>/retry/", views.retry_stage, name="retry_stage"),
    path("projects/<slug:slug>/models/", views.models, name="models"),
    path("projects/<slug:slug>/models/retire/", views.retire_policy, name="retire_policy"),
    path("projects/<slug:slug>/campaigns/", serving_views.campaigns, name="campaigns"),
    path("projects/<slug:slug>/dashboard/", views.dashboard, name="dashboard"),
    path("projects/<slug:slug>/dashboard/<slug:panel>.csv", views.panel_csv, name="panel_csv"),
]
