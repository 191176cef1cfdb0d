"""The page that sends a frozen version to a hub repository or to a bucket: first what, then the sending."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods

from annotation.access import CAN_EXPORT, project_view
from annotation.data import pushing
from annotation.data.destinations.target import allowed_prefixes
from annotation.data.export_forms import choices
from annotation.data.exports.forms import ARCHIVE
from annotation.data.snapshot_files import SnapshotError
from annotation.lib.languages import english_only
from annotation.models import Project, Snapshot


class PushForm(forms.Form):
    """What to send, where, and who may see it there."""

    what = forms.ChoiceField(label="Files", required=False)
    target = forms.CharField(
        max_length=300, widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"})
    )
    visibility = forms.ChoiceField(
        choices=[("private", "private"), ("public", "public")],
        initial="private",
        widget=forms.RadioSelect,
    )
    token = forms.CharField(
        required=False,
        max_length=500,
        strip=True,
        widget=forms.PasswordInput(attrs={"autocomplete": "off"}),
        help_text="For a hub repository, with write access. It is not stored.",
    )

    def __init__(self, *args: Any, snapshot: Snapshot, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        parts = [("", "The version as it was frozen")]
        for choice in choices(snapshot):
            if choice.key == ARCHIVE or choice.why_not:
                continue
            for axis in choice.axes or [""]:
                label = f"{choice.form.title}, {axis}" if axis else choice.form.title
                parts.append((f"{choice.key}:{axis}", label))
        self.fields["what"].choices = parts  # type: ignore[attr-defined]


@english_only
@sensitive_post_parameters("token")
@project_view(*CAN_EXPORT)
@require_http_methods(["GET", "POST"])
def snapshot_push(request: HttpRequest, project: Project, version: int) -> HttpResponse:
    """The plan of what would be sent, then the sending; and what was sent before."""
    snapshot = get_object_or_404(Snapshot, project=project, version=version)
    allowed = allowed_prefixes(settings.PUSH_ALLOWED, project.slug)
    form = PushForm(request.POST or None, snapshot=snapshot, initial={"target": _first(allowed)})
    chosen: pushing.Plan | None = None
    there = error = ""
    if request.method == "POST" and form.is_valid():
        fields = form.cleaned_data
        key, _, axis = fields["what"].partition(":")
        try:
            chosen = pushing.plan(
                snapshot,
                fields["target"],
                form=key,
                axis=axis,
                is_private=fields["visibility"] == "private",
                by=request.user,
            )
            if request.POST.get("act") == "send":
                pushing.start(
                    snapshot,
                    chosen,
                    form=key,
                    axis=axis,
                    token=fields["token"],
                    key=request.POST.get("key", ""),
                    by=request.user,
                )
                messages.success(request, f"Version {version} is on its way to {chosen.target}.")
                return redirect("snapshot_push", project.slug, version)
            there = pushing.look(chosen, snapshot, fields["token"])
        except SnapshotError as refusal:
            error = str(refusal)
    pushes = pushing.latest(snapshot)
    return render(
        request,
        "annotation/data/push.html",
        {
            "snapshot": snapshot,
            "form": form,
            "allowed": allowed,
            "plan": chosen,
            "there": there,
            "error": error,
            "pushes": pushes,
            "is_sending": any(push.is_writing for push in pushes),
        },
        status=422 if error or form.errors else 200,
    )


def _first(allowed: list[str]) -> str:
    return allowed[0] if allowed else ""
