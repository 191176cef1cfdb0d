"""Pages where rounds are launched, watched and judged."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, project_view
from annotation.models import Project


@project_view(*CAN_READ_DATA)
def rounds(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_READ_DATA)
def round_detail(request: HttpRequest, project: Project, number: int) -> HttpResponse:
    return render(request, "base.html")


@project_view(*CAN_READ_DATA)
def dashboard(request: HttpRequest, project: Project) -> HttpResponse:
    return render(request, "base.html")
