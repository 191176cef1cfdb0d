"""Settings of assignment: a project's limits, its people's skills and limits, its batches' order.

The page and the API validate and save them with these forms.
"""

from typing import Any, ClassVar

from django import forms
from django.db import transaction

from annotation.models import Batch, Event, Membership, Project, User

MAX_SKILLS, MAX_SKILL_LENGTH = 20, 40


class SkillsField(forms.CharField):
    """Words separated by commas, or a list of them; in lower case, each once."""

    def __init__(self) -> None:
        super().__init__(required=False, help_text="For example de, python, medicine.")

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
        if any(len(skill) > MAX_SKILL_LENGTH for skill in value):
            raise forms.ValidationError(f"A skill has at most {MAX_SKILL_LENGTH} characters.")

    def run_validators(self, value: Any) -> None:
        """The validators of CharField are for text, not for a list."""


class ProjectAssignmentForm(forms.ModelForm):  # type: ignore[type-arg]
    """The limits of everybody, and the share of random draws."""

    class Meta:
        model = Project
        fields = ("daily_limit", "total_limit", "random_share")
        labels: ClassVar[dict[str, str]] = {
            "daily_limit": "Comparisons per person per day",
            "total_limit": "Comparisons per person in total",
            "random_share": "Random sampling share",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "daily_limit": "Empty: no limit. Tasks already assigned can still be finished.",
            "total_limit": "Empty: no limit.",
            "random_share": "0 to 1. The rest is handed out by priority, most informative first; "
            "figures over the random share are unbiased.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "random_share": forms.NumberInput(attrs={"min": 0, "max": 1, "step": 0.05})
        }


class MemberAssignmentForm(forms.ModelForm):  # type: ignore[type-arg]
    """One member's skills, campaign and limits."""

    skills = SkillsField()

    class Meta:
        model = Membership
        fields = ("skills", "campaign", "daily_limit", "total_limit")


class BatchAssignmentForm(forms.ModelForm):  # type: ignore[type-arg]
    """A batch's priority, campaign and required skill."""

    class Meta:
        model = Batch
        fields = ("priority", "campaign", "skill")

    def clean_skill(self) -> str:
        return str(self.cleaned_data["skill"]).strip().lower()


AssignmentForm = ProjectAssignmentForm | MemberAssignmentForm | BatchAssignmentForm


@transaction.atomic
def save_assignment(form: AssignmentForm, by: User) -> bool:
    """Save the changed fields and record an Event; False if no field has changed."""
    if not form.changed_data:
        return False
    instance = form.save(commit=False)
    instance.save(update_fields=form.changed_data)
    project = instance if isinstance(instance, Project) else instance.project
    target = instance.user if isinstance(instance, Membership) else instance
    changes = {name: form.cleaned_data[name] for name in form.changed_data}
    Event.record(project, by, "changed assignment", target, **changes)
    return True


def member_forms(project: Project, data: Any = None) -> list[MemberAssignmentForm]:
    """A form for each member who judges."""
    members = project.memberships.select_related("user").exclude(role=Membership.Role.RESEARCHER)
    return [
        MemberAssignmentForm(data, instance=member, prefix=f"person-{member.pk}", auto_id=False)
        for member in members.order_by("user__username")
    ]


def batch_forms(project: Project, data: Any = None) -> list[BatchAssignmentForm]:
    """A form for each batch that is not closed."""
    batches = project.batches.exclude(state=Batch.State.CLOSED).order_by("-priority", "opened_at")
    return [
        BatchAssignmentForm(data, instance=batch, prefix=f"batch-{batch.pk}", auto_id=False)
        for batch in batches
    ]
