"""Pages of data: prompts and their import, snapshots and their download, API tokens."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, CAN_RUN, project_view
from annotation.models import Project


@login_required
def tokens(request: HttpRequest) -> HttpResponse:
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
