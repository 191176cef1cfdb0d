"""Pages where people judge, and a project's own pages."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import CAN_JUDGE, CAN_RUN, project_view
from annotation.models import Project


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")


@project_view()
def project(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_RUN)
def project_settings(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_JUDGE)
def judge(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")
