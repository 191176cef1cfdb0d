"""Live dialogue for admins: which policies answer, and the campaigns in which people talk to them."""

from typing import Any

from django import forms
from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render

from annotation.access import CAN_RUN, project_view
from annotation.judge.dialogues import MAX_TASK, DialogueError, cannot_ask, open_campaign, rules_of
from annotation.models import Batch, DialogueCampaign, Interface, Project, Turn, User
from annotation.pages.project_forms import preset_choices, preset_of
from annotation.projects.batches import close_batch
from annotation.protocols import PRESETS
from annotation.request import who_asks, whole_number
from rlhf import serving
from rlhf.models import Checkpoint


class CampaignForm(forms.Form):
    """A campaign: what people talk about, with which policies, under which licence."""

    name = forms.CharField(max_length=80)
    kind = forms.ChoiceField(choices=DialogueCampaign.Kind.choices, widget=forms.RadioSelect)
    asks = forms.ChoiceField(
        label="What people are asked at each turn", required=False, widget=forms.RadioSelect
    )
    task = forms.CharField(
        label="What to talk about",
        required=False,
        max_length=MAX_TASK,
        widget=forms.Textarea(attrs={"rows": 4}),
        help_text="Markdown; people see it before their first message.",
    )
    policies = forms.MultipleChoiceField(
        widget=forms.CheckboxSelectMultiple,
        help_text="With several, each message is answered by two of them, drawn at random; nobody "
        "is told which.",
    )
    temperatures = forms.CharField(
        initial="0.7, 1.0",
        max_length=60,
        help_text="One or more numbers; the two answers get different ones where there are several.",
    )
    max_new_tokens = forms.IntegerField(
        label="Longest answer, in tokens", initial=128, min_value=8, max_value=4096
    )
    max_turns = forms.IntegerField(
        label="Turns in a dialogue, at most", initial=6, min_value=1, max_value=30
    )
    licence = forms.CharField(
        max_length=120,
        initial="Written for this project",
        help_text="Under which people give what they write here.",
    )
    signed_off = forms.BooleanField(
        label="The people who take part have agreed that their words are used for training.",
    )

    def __init__(
        self, *args: Any, project: Project, policies: list[tuple[str, str]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fields["policies"].choices = policies  # type: ignore[attr-defined]
        asks: Any = self.fields["asks"]
        asks.choices, asks.initial = _asks(project)

    def clean_temperatures(self) -> list[float]:
        try:
            given = [float(one) for one in self.cleaned_data["temperatures"].split(",")]
        except ValueError:
            raise forms.ValidationError("Give numbers with commas between them.") from None
        if not all(0.05 <= one <= 2 for one in given) or len(given) > 6:
            raise forms.ValidationError("Give at most six numbers from 0.05 to 2.")
        return given


def _asks(project: Project) -> tuple[list[tuple[str, str]], str]:
    """What can be asked at each turn, and what is ticked at first."""
    mine = preset_of(project)
    choices = [
        (key, label)
        for key, label in preset_choices()
        if PRESETS[key].interface == Interface.DIALOGUE and key != mine
    ]
    if project.interface not in (Interface.DIALOGUE, Interface.PAIR):
        return choices, choices[0][0]
    label = dict(preset_choices()).get(mine, "As the project asks, with its own changes")
    # What a dialogue can't ask is offered all the same: the refusal says which part it is.
    first = choices[0][0] if choices and cannot_ask(rules_of(project)) else ""
    return [("", label), *choices], first


@project_view(*CAN_RUN)
def campaigns(request: HttpRequest, project: Project) -> HttpResponse:
    """Policies that can be served with their states, and the project's campaigns."""
    act = request.POST.get("act", "") if request.method == "POST" else ""
    if act in ("start", "stop"):
        _switch(request, project, act)
        return redirect("campaigns", project.slug)
    if act == "close":
        batch = get_object_or_404(
            Batch, project=project, dialogue_campaign__pk=whole_number(request.POST.get("campaign"))
        )
        close_batch(batch, who_asks(request))
        messages.success(request, f"{batch.name} is closed; what was said in it is kept.")
        return redirect("campaigns", project.slug)
    served, outside, problem = _policies(project)
    choices = [(str(one["checkpoint"].uid), one["checkpoint"].name) for one in served]
    choices += [(serving.EXTERNAL + name, name) for name in outside]
    form = CampaignForm(request.POST if act == "open" else None, project=project, policies=choices)
    if act == "open" and form.is_valid():
        try:
            campaign = _open(project, form.cleaned_data, who_asks(request))
        except DialogueError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"{campaign} is open.")
            return redirect("campaigns", project.slug)
    context = {
        "project": project,
        "served": served,
        "outside": outside,
        "problem": problem,
        "form": form,
        "campaigns": DialogueCampaign.objects.filter(batch__project=project)
        .select_related("batch")
        .annotate(
            n_turns=Count("dialogues__turns", filter=Q(dialogues__turns__state=Turn.State.CHOSEN)),
            n_people=Count("dialogues__annotator", distinct=True),
        )
        .order_by("-pk"),
        "is_waiting": any(one["health"].state in ("starting", "gone") for one in served),
    }
    return render(request, "rlhf/campaigns.html", context, status=422 if form.errors else 200)


def _policies(project: Project) -> tuple[list[dict[str, Any]], list[str], str]:
    """The project's policies with how their servers are; the outside server's; what ails it."""
    policies = (
        Checkpoint.objects.filter(project=project, kind=Checkpoint.Kind.POLICY)
        .select_related("server", "round")
        .order_by("-created_at")[:50]
    )
    rows = []
    for checkpoint in policies:
        server = getattr(checkpoint, "server", None)
        health = serving.health(server)
        rows.append(
            {
                "checkpoint": checkpoint,
                "health": health,
                "may_stop": health.state in ("starting", "ready", "gone", "asleep"),
            }
        )
    try:
        return rows, serving.external_models(), ""
    except serving.ServingError as error:
        return rows, [], str(error)


def _switch(request: HttpRequest, project: Project, act: str) -> None:
    checkpoint = get_object_or_404(
        Checkpoint,
        project=project,
        kind=Checkpoint.Kind.POLICY,
        pk=whole_number(request.POST.get("checkpoint")),
    )
    try:
        if act == "start":
            serving.want(checkpoint, who_asks(request))
        else:
            serving.unwant(checkpoint, who_asks(request))
    except serving.ServingError as error:
        messages.error(request, str(error))


def _open(project: Project, data: dict[str, Any], by: User) -> DialogueCampaign:
    return open_campaign(
        project,
        data["name"],
        kind=data["kind"],
        preset=data["asks"],
        task=data["task"],
        max_turns=data["max_turns"],
        licence=data["licence"],
        by=by,
        writing={
            "policies": data["policies"],
            "temperatures": data["temperatures"],
            "max_new_tokens": data["max_new_tokens"],
        },
    )
