"""The form that opens a campaign of live dialogues."""

from typing import Any

from django import forms

from annotation.judge.dialogue_campaigns import MAX_TASK, cannot_ask, protocol_of
from annotation.models import DialogueCampaign, Interface, Project
from annotation.pages.project_forms import preset_choices, preset_of
from annotation.protocols import PRESETS


class CampaignForm(forms.Form):
    """A new campaign: its topic, question at each turn, policies and license."""

    name = forms.CharField(max_length=80)
    kind = forms.ChoiceField(choices=DialogueCampaign.Kind.choices, widget=forms.RadioSelect)
    asks = forms.ChoiceField(
        label="Question at each turn", required=False, widget=forms.RadioSelect
    )
    task = forms.CharField(
        label="Topic",
        required=False,
        max_length=MAX_TASK,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="Markdown; shown before the first message.",
    )
    policies = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple,
        help_text="With several, two random ones answer each message. Annotators don't see which.",
    )
    temperatures = forms.CharField(
        initial="0.7, 1.0",
        max_length=60,
        help_text="Numbers separated by commas. The two answers get different temperatures.",
    )
    max_new_tokens = forms.IntegerField(
        label="Longest answer (tokens)", initial=128, min_value=8, max_value=4096
    )
    max_turns = forms.IntegerField(
        label="Turns per dialogue, at most", initial=6, min_value=1, max_value=30
    )
    licence = forms.CharField(
        label="License",
        max_length=120,
        initial="Written for this project",
        help_text="Applies to everything that people write in this campaign.",
    )
    signed_off = forms.BooleanField(
        label="All participants have agreed that their words are used for training.",
    )

    def __init__(
        self, *args: Any, project: Project, policies: list[tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["policies"].choices = policies  # type: ignore[attr-defined]
        asks: Any = self.fields["asks"]
        asks.choices, asks.initial = _question_choices(project)

    def clean_temperatures(self) -> list[float]:
        try:
            temperatures = [float(part) for part in self.cleaned_data["temperatures"].split(",")]
        except ValueError:
            raise forms.ValidationError("Give numbers with commas between them.") from None
        if not all(0.05 <= t <= 2 for t in temperatures) or len(temperatures) > 6:
            raise forms.ValidationError("Give at most six numbers from 0.05 to 2.")
        return temperatures


def _question_choices(project: Project) -> tuple[list[tuple[str, str]], str]:
    """The choices for the question at each turn, and the initial choice."""
    own_preset = preset_of(project)
    choices = [
        (key, label)
        for key, label in preset_choices()
        if PRESETS[key].interface == Interface.DIALOGUE and key != own_preset
    ]
    if project.interface not in (Interface.DIALOGUE, Interface.PAIR):
        return choices, choices[0][0]
    label = dict(preset_choices()).get(own_preset, "The project's protocol, as changed")
    # A protocol that a dialogue can't ask is still offered: the error names the part.
    initial = choices[0][0] if choices and cannot_ask(protocol_of(project)) else ""
    return [("", label), *choices], initial
