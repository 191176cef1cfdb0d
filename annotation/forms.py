"""Forms of a project's own pages: itself and its members."""

from typing import Any, ClassVar

from django import forms
from django.db.models import Q
from django.utils.text import slugify

from annotation.models import Membership, Project, User

RESERVED_SLUGS = {"new"}


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]
    """What an admin may change about a project at any time."""

    class Meta:
        model = Project
        fields = (
            "name",
            "description",
            "guidelines",
            "overlap",
            "responses_per_comparison",
            "lease_minutes",
        )
        labels: ClassVar[dict[str, str]] = {
            "overlap": "People per comparison",
            "responses_per_comparison": "Responses per comparison",
            "lease_minutes": "Minutes a comparison is kept for one person",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "description": "One or two sentences; members see them on the project's page.",
            "guidelines": "Markdown. One key away while judging; every judgment notes their version.",
            "overlap": "How many people judge each comparison of a new batch.",
            "responses_per_comparison": "2 to 9; new batches show this many.",
            "lease_minutes": "The page prolongs it while somebody is at work.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "description": forms.Textarea(attrs={"rows": 2}),
            "guidelines": forms.Textarea(attrs={"rows": 10}),
        }

    def clean_lease_minutes(self) -> int:
        minutes: int = self.cleaned_data["lease_minutes"]
        if not 1 <= minutes <= 24 * 60:
            raise forms.ValidationError("Give 1 to 1,440 minutes.")
        return minutes

    def clean_overlap(self) -> int:
        overlap: int = self.cleaned_data["overlap"]
        if overlap > 100:
            raise forms.ValidationError("At most 100 people judge one comparison.")
        return overlap


class NewProjectForm(ProjectForm):
    """The same questions, and an address made from the name."""

    class Meta(ProjectForm.Meta):
        fields = ("name", "description", "guidelines", "overlap", "responses_per_comparison")  # type: ignore[assignment]

    clean_lease_minutes = None  # type: ignore[assignment]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        slug = slugify(name)[:60]
        if not slug or slug in RESERVED_SLUGS:
            raise forms.ValidationError("Use a name with letters or digits in it.")
        if Project.objects.filter(slug=slug).exists():
            raise forms.ValidationError("There is a project of this name already; choose another.")
        self.instance.slug = slug
        return name


class MemberForm(forms.Form):
    """Somebody with an account joins the project, or gets another role in it."""

    who = forms.CharField(
        label="User name or e-mail address",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    role = forms.ChoiceField(choices=Membership.Role.choices)

    def clean_who(self) -> User:
        who = self.cleaned_data["who"].strip()
        found = list(User.objects.filter(Q(username=who) | Q(email__iexact=who))[:2])
        if len(found) != 1:
            raise forms.ValidationError(
                "Nobody with an account has this name or address; they sign up or an operator adds them."
                if not found
                else "Several accounts have this address; give the user name."
            )
        return found[0]
