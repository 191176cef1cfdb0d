"""The form that puts a batch together by hand."""

from typing import Any

from django import forms
from django.db.models import Count

from annotation.models import Batch, Project, Response
from annotation.pages.project_forms import preset_choices, preset_of
from annotation.projects.batches import too_many_people
from annotation.projects.campaigns import MOST
from annotation.protocols import COMPARING, DEMONSTRATE, DIALOGUE, PRESETS


class CampaignForm(forms.Form):
    """The protocol, the responses, the number of prompts and the number of people."""

    name = forms.CharField(
        max_length=120, label="Name", help_text="Visible to annotators, so leave out model names."
    )
    asks = forms.ChoiceField(label="Task", widget=forms.RadioSelect)
    responses_of = forms.ModelChoiceField(
        queryset=Batch.objects.none(),
        required=False,
        label="Responses of",
        empty_label="none: annotators write",
        help_text="An earlier batch, or the responses of an imported file. They are sampled at random.",
    )
    n = forms.IntegerField(
        min_value=1,
        max_value=MOST,
        initial=50,
        label="Number of prompts",
        help_text="Random sample of the train split of signed-off sources.",
    )
    overlap = forms.IntegerField(min_value=1, label="People per comparison")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = preset_of(project)
        choices = [
            (key, label)
            for key, label in preset_choices()
            if key != mine and PRESETS[key].interface != DIALOGUE and fits(key, project)
        ]
        label = dict(preset_choices()).get(mine, "Project task with custom changes")
        first = [("", label)] if project.interface != DIALOGUE else []
        asks: Any = self.fields["asks"]
        asks.choices, asks.required = [*first, *choices], not first
        batches: Any = self.fields["responses_of"]
        batches.queryset = (
            project.batches.annotate(n_responses=Count("comparisons__responses"))
            .filter(n_responses__gt=0)
            # Of a file's responses, the first batch stands for all of them.
            .exclude(is_imported=True, name__startswith=Batch.RESPONSES, name__regex=r", part \d+$")
            .order_by("-created_at")
        )
        batches.label_from_instance = _batch_label
        self.fields["overlap"].initial = project.overlap
        self.project = project
        self.unavailable = [
            (PRESETS[key].title, reason)
            for key in PRESETS
            if key not in dict(choices) and key != mine and (reason := _why_not(key, project))
        ]

    def clean_overlap(self) -> int:
        overlap: int = self.cleaned_data["overlap"]
        if problem := too_many_people(overlap):
            raise forms.ValidationError(problem)
        return overlap

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        preset = cleaned.get("asks")
        interface = PRESETS[preset].interface if preset else self.project.interface
        if interface != DEMONSTRATE and not cleaned.get("responses_of"):
            self.add_error("responses_of", "Choose the batch with the responses to judge.")
        return cleaned


def fits(key: str, project: Project) -> bool:
    """A preset that compares must do so on the project's axes; others ask about no axis."""
    preset = PRESETS[key]
    if preset.interface not in COMPARING:
        return True
    return [axis["key"] for axis in preset.axes] == project.axis_keys


def _why_not(key: str, project: Project) -> str:
    """Why a batch of this project can't ask what the preset asks; "" if it can."""
    preset = PRESETS[key]
    if preset.interface == DIALOGUE:
        return "people write the prompts; open a campaign under Live dialogue"
    if not fits(key, project):
        axes = " and ".join(axis["name"] for axis in preset.axes)
        own = " and ".join(axis["name"] for axis in project.axes)
        return f"it compares on {axes}, and this project on {own}"
    return ""


def _batch_label(batch: Any) -> str:
    n_responses = batch.n_responses
    if batch.has_imported_responses:
        stored = Response.objects.filter(
            comparison__batch__source=batch.source,
            comparison__batch__is_imported=True,
            comparison__batch__name__startswith=Batch.RESPONSES,
        )
        n_responses = stored.count()
    return f"{batch.name} ({n_responses:,} responses)"
