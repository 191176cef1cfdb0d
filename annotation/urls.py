from django.urls import path

from annotation import data_views, views

urlpatterns = [
    path("", views.home, name="home"),
    path("account/tokens/", data_views.tokens, name="tokens"),
    path("projects/<slug:slug>/", views.project, name="project"),
    path("projects/<slug:slug>/settings/", views.project_settings, name="project_settings"),
    path("projects/<slug:slug>/judge/", views.judge, name="judge"),
    path("projects/<slug:slug>/prompts/", data_views.prompts, name="prompts"),
    path("projects/<slug:slug>/prompts/import/", data_views.prompt_import, name="prompt_import"),
    path("projects/<slug:slug>/data/", data_views.snapshots, name="snapshots"),
    path("projects/<slug:slug>/data/<int:version>/", data_views.snapshot, name="snapshot"),
]
