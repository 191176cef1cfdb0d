"""Who gets what: a project's rules, its people's skills and limits, its batches' order.

The page and the API check and save through these forms.
"""

from typing import Any, ClassVar

from django import forms
from django.db import transaction

from annotation.models import Batch, Event, Membership, Project, User

MAX_SKILLS, MAX_SKILL = 20, 40


class SkillsField(forms.CharField):
    """Words with commas between them, or a list of them; small letters, each once."""

    def __init__(self) -> None:
        super().__init__(required=False, help_text="Such as de, python, medicine.")

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(list(initial or []) != self.to_python(data))

    def to_python(self, value: Any) -> Any:
        words = value if isinstance(value, list) else str(value or "").split(",")
        skills = list(dict.fromkeys(str(word).strip().lower() for word in words))
        return [skill for skill in skills if skill]

    def validate(self, value: Any) -> None:
        if len(value) > MAX_SKILLS:
            raise forms.ValidationError(f"Give at most {MAX_SKILLS} skills.")
        if any(len(skill) > MAX_SKILL for skill in value):
            raise forms.ValidationError(f"A skill has at most {MAX_SKILL} letters.")

    def run_validators(self, value: Any) -> None:
        """Those of CharField are for text."""


class RulesForm(forms.ModelForm):  # type: ignore[type-arg]
    """How a project's comparisons are handed out."""

    class Meta:
        model = Project
        fields = ("daily_limit", "total_limit", "random_share")
        labels: ClassVar[dict[str, str]] = {
            "daily_limit": "Comparisons one person gets a day",
            "total_limit": "Comparisons one person gets in all",
            "random_share": "Share drawn at random",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "daily_limit": "Empty: any number. What they hold they may always finish.",
            "total_limit": "Empty: any number.",
            "random_share": "0 to 1. The rest goes by priority and by what would teach most; "
            "this share does not, so that figures over it are fair.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "random_share": forms.NumberInput(attrs={"min": 0, "max": 1, "step": 0.05})
        }


class PersonForm(forms.ModelForm):  # type: ignore[type-arg]
    """What one member knows, and how much of what they get."""

    skills = SkillsField()

    class Meta:
        model = Membership
        fields = ("skills", "campaign", "daily_limit", "total_limit")


class BatchForm(forms.ModelForm):  # type: ignore[type-arg]
    """When a batch is handed out, and to whom."""

    class Meta:
        model = Batch
        fields = ("priority", "campaign", "skill")

    def clean_skill(self) -> str:
        return str(self.cleaned_data["skill"]).strip().lower()


Form = RulesForm | PersonForm | BatchForm


@transaction.atomic
def save(form: Form, by: User) -> bool:
    """Save what was changed and note who did; False if nothing was."""
    if not form.changed_data:
        return False
    instance = form.save(commit=False)
    instance.save(update_fields=form.changed_data)
    project = instance if isinstance(instance, Project) else instance.project
    target = instance.user if isinstance(instance, Membership) else instance
    said = {name: form.cleaned_data[name] for name in form.changed_data}
    Event.record(project, by, "changed who gets what", target, **said)
    return True


def people(project: Project, data: Any = None) -> list[PersonForm]:
    """A form for each member who judges."""
    members = project.memberships.select_related("user").exclude(role=Membership.Role.RESEARCHER)
    return [
        PersonForm(data, instance=member, prefix=f"person-{member.pk}", auto_id=False)
        for member in members.order_by("user__username")
    ]


def batches(project: Project, data: Any = None) -> list[BatchForm]:
    """A form for each batch that is not closed."""
    found = project.batches.exclude(state=Batch.State.CLOSED).order_by("-priority", "opened_at")
    return [
        BatchForm(data, instance=batch, prefix=f"batch-{batch.pk}", auto_id=False)
        for batch in found
    ]
