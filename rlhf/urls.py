from django.urls import path

from rlhf import views

urlpatterns = [
    path("projects/<slug:slug>/rounds/", views.rounds, name="rounds"),
    path("projects/<slug:slug>/rounds/<int:number>/", views.round_detail, name="round"),
    path("projects/<slug:slug>/dashboard/", views.dashboard, name="dashboard"),
]
