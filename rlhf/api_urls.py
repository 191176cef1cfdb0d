from django.urls import path

from rlhf import api

urlpatterns = [
    path("projects/<slug:slug>/rounds/", api.RoundList.as_view(), name="rounds"),
    path("projects/<slug:slug>/rounds/<int:number>/", api.round_detail, name="round"),
    path("projects/<slug:slug>/rounds/<int:number>/cancel/", api.round_cancel, name="round_cancel"),
    path("projects/<slug:slug>/rounds/<int:number>/retry/", api.round_retry, name="round_retry"),
    path(
        "projects/<slug:slug>/rounds/<int:number>/continue/",
        api.round_continue,
        name="round_continue",
    ),
    path(
        "projects/<slug:slug>/rounds/<int:number>/retrain/", api.round_retrain, name="round_retrain"
    ),
    path("projects/<slug:slug>/scores/", api.ScoreList.as_view(), name="scores"),
    path("projects/<slug:slug>/jobs/", api.JobList.as_view(), name="jobs"),
    path("projects/<slug:slug>/jobs/<uuid:uid>/", api.job_detail, name="job"),
    path("projects/<slug:slug>/jobs/<uuid:uid>/cancel/", api.job_cancel, name="job_cancel"),
    path("projects/<slug:slug>/jobs/<uuid:uid>/metrics/", api.job_metrics, name="job_metrics"),
]
