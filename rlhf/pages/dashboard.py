"""The dashboard, and each panel's table as CSV."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render

from annotation.access import CAN_READ_DATA, project_view
from annotation.lib.languages import english_only
from annotation.models import Project
from rlhf.dashboard.evidence import JUDGES, Evidence, load_evidence
from rlhf.dashboard.panels import PANELS, all_panels
from rlhf.dashboard.tables import table_as_csv
from rlhf.pages.lookup import csv_file, may_run


def _evidence(request: HttpRequest, project: Project) -> Evidence:
    """The evidence of the judge and the temperature in the address."""
    return load_evidence(project, request.GET.get("judge", ""), request.GET.get("temperature", ""))


@english_only
@project_view(*CAN_READ_DATA)
def dashboard(request: HttpRequest, project: Project) -> HttpResponse:
    """Safety and helpfulness per round, with the panels that explain them."""
    evidence = _evidence(request, project)
    context = {
        "evidence": evidence,
        "panels": all_panels(evidence),
        "judges": [(name, JUDGES[name]) for name in evidence.judges],
        "may_run": may_run(request),
        "query": f"judge={evidence.judge}&temperature={evidence.temperature}",
    }
    return render(request, "rlhf/dashboard.html", context)


@english_only
@project_view(*CAN_READ_DATA)
def panel_csv(request: HttpRequest, project: Project, panel: str) -> HttpResponse:
    """One panel's table."""
    build = PANELS.get(panel)
    if build is None:
        raise Http404("There is no such panel.")
    evidence = _evidence(request, project)
    name = f"{project.slug}-{panel}-{evidence.judge}-t{evidence.temperature:g}.csv"
    return csv_file(table_as_csv(build(evidence).table), name)
