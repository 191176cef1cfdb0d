from django.urls import path

from rlhf import views

urlpatterns = [
    path("projects/<slug:slug>/rounds/", views.rounds, name="rounds"),
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
    path("projects/<slug:slug>/dashboard/", views.dashboard, name="dashboard"),
    path("projects/<slug:slug>/dashboard/<slug:panel>.csv", views.panel_csv, name="panel_csv"),
]
