"""The form that puts a batch together by hand."""

from typing import Any

from django import forms
from django.db.models import Count

from annotation.models import Batch, Project
from annotation.pages.project_forms import preset_choices, preset_of
from annotation.projects.campaigns import MOST
from annotation.protocols import COMPARING, DEMONSTRATE, DIALOGUE, PRESETS


class CampaignForm(forms.Form):
    """What is asked, about which responses, of how many prompts, by how many people."""

    name = forms.CharField(
        max_length=120, label="Name", help_text="People see it while they judge, so no model names."
    )
    asks = forms.ChoiceField(label="What people are asked", widget=forms.RadioSelect)
    responses_of = forms.ModelChoiceField(
        queryset=Batch.objects.none(),
        required=False,
        label="Responses of",
        empty_label="none: people write",
        help_text="An earlier batch, whoever judged it; which responses are shown is drawn by lot.",
    )
    n = forms.IntegerField(
        min_value=1,
        max_value=MOST,
        initial=50,
        label="How many prompts",
        help_text="Drawn by lot from the train split of signed-off sources.",
    )
    overlap = forms.IntegerField(min_value=1, max_value=100, label="People for each")

    def __init__(self, *args: Any, project: Project, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = preset_of(project)
        choices = [
            (key, label)
            for key, label in preset_choices()
            if key != mine and PRESETS[key].interface != DIALOGUE and _fits(key, project)
        ]
        label = dict(preset_choices()).get(mine, "As the project asks, with its own changes")
        first = [("", label)] if project.interface != DIALOGUE else []
        asks: Any = self.fields["asks"]
        asks.choices, asks.required = [*first, *choices], not first
        batches: Any = self.fields["responses_of"]
        batches.queryset = (
            project.batches.annotate(n_responses=Count("comparisons__responses"))
            .filter(n_responses__gt=0)
            .order_by("-created_at")
        )
        self.fields["overlap"].initial = project.overlap
        self.project = project

    def clean(self) -> dict[str, Any]:
        given = super().clean() or self.cleaned_data
        asks = given.get("asks")
        interface = PRESETS[asks].interface if asks else self.project.interface
        if interface != DEMONSTRATE and not given.get("responses_of"):
            self.add_error("responses_of", "Choose the batch whose responses are judged.")
        return given


def _fits(key: str, project: Project) -> bool:
    """A preset that compares must do so on the project's axes; others ask about no axis."""
    preset = PRESETS[key]
    if preset.interface not in COMPARING:
        return True
    return [axis["key"] for axis in preset.axes] == project.axis_keys
