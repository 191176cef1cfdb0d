"""Pages where people judge, import and export."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import CAN_JUDGE, CAN_READ_DATA, CAN_RUN, project_view
from annotation.models import Project


@login_required
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "base.html")


@login_required
def tokens(request: HttpRequest) -> HttpResponse:
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


@project_view(*CAN_READ_DATA)
def prompts(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_RUN)
def prompt_import(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_READ_DATA)
def snapshots(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_READ_DATA)
def snapshot(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    return render(request, "base.html")
