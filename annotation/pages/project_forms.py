"""Forms of a project's own pages: itself and its members."""

import json
from typing import Any, ClassVar

from django import forms
from django.utils.crypto import get_random_string
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.text import slugify

from annotation.models import MAX_RESPONSES, Membership, Project, User
from annotation.projects.batches import too_many_people
from annotation.protocols import PRESETS, RESPONSES, Preset, Protocol, ProtocolError

RESERVED_SLUGS = {"new"}


CUSTOM = "custom"


def preset_choices() -> list[tuple[str, str]]:
    """Each published protocol with what an annotator does under it."""
    return [
        (
            key,
            format_html(
                '<span class="choice-title">{}</span> <span class="choice-text">{}</span>',
                preset.title,
                preset.explanation,
            ),
        )
        for key, preset in PRESETS.items()
    ]


def preset_of(project: Project) -> str:
    """The preset that a project's protocol is, to the letter; else "custom"."""
    if not project.protocol:
        return "rank" if project.interface == "rank" else CUSTOM
    preset = PRESETS.get(project.effective_protocol.preset)
    same = preset and (preset.interface, preset.protocol) == (
        project.interface,
        project.effective_protocol,
    )
    return preset.key if preset and same else CUSTOM


class ProjectForm(forms.ModelForm):  # type: ignore[type-arg]
    """What an admin may change about a project at any time."""

    asks = forms.ChoiceField(
        label="Task",
        required=False,
        widget=forms.RadioSelect,
        help_text="Applies to new batches; open batches keep theirs.",
    )
    details = forms.CharField(
        label="Edit as JSON",
        required=False,
        strip=True,
        widget=forms.Textarea(
            attrs={"rows": 6, "class": "mono", "spellcheck": "false", "fold": "fold"}
        ),
        help_text="Protocol as JSON, see docs/formats.md. Unchanged, it follows the task above.",
    )
    field_order = ("name", "description", "asks", "details", "guidelines")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._before = (self.instance.interface, self.instance.protocol)
        now = preset_of(self.instance)
        choices = preset_choices()
        if now == CUSTOM:
            choices.append((CUSTOM, "Current protocol with custom changes"))
        asks: Any = self.fields["asks"]
        asks.choices, asks.initial = choices, now
        if "details" in self.fields:
            self.fields["details"].initial = _as_text(self.instance.effective_protocol)

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
            "lease_minutes": "Task lock (minutes)",
        }
        help_texts: ClassVar[dict[str, str]] = {
            "description": "One or two sentences for the project page.",
            "guidelines": "Markdown, shown while judging. Every judgment records its version.",
            "overlap": "Judgments for each comparison of a new batch.",
            "responses_per_comparison": "2 to 9; new batches show this many.",
            "lease_minutes": "Renewed while the annotator is active.",
        }
        widgets: ClassVar[dict[str, Any]] = {
            "description": forms.Textarea(attrs={"rows": 2}),
            "guidelines": forms.Textarea(attrs={"rows": 10}),
        }

    judge_again = forms.IntegerField(
        label="Re-annotation rate after a guideline change (percent)",
        min_value=0,
        max_value=100,
        required=False,
        help_text="Random share of judged comparisons in open batches that one more "
        "person judges, to measure the effect of the change.",
    )

    @cached_property
    def changed_data(self) -> list[str]:
        """Names of what was changed, for the audit log; both ways to the protocol are `protocol`."""
        names = [name for name in super().changed_data if name not in ("asks", "details")]
        changed = (self.instance.interface, self.instance.protocol) != self._before
        return [*names, "protocol"] if changed else names

    def clean_details(self) -> Protocol | None:
        """The protocol that was typed; None where nothing was changed."""
        text = self.cleaned_data["details"].replace("\r\n", "\n")
        if not text or text == _as_text(self.instance.effective_protocol):
            return None
        try:
            return Protocol.from_json(json.loads(text))
        except json.JSONDecodeError as error:
            raise forms.ValidationError(f"Line {error.lineno} is not JSON: {error.msg}.") from error
        except ProtocolError as error:
            raise forms.ValidationError(str(error)) from error
        except (ValueError, RecursionError):
            raise forms.ValidationError(
                "This is not readable JSON: a number is too long, or the nesting is too deep."
            ) from None

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or self.cleaned_data
        chosen = PRESETS.get(cleaned.get("asks") or "")
        if chosen and chosen.key != preset_of(self.instance):
            self._take(chosen)
        if typed := cleaned.get("details"):
            self.instance.protocol = typed.as_json()
        most = RESPONSES[self.instance.interface][1]
        if most < cleaned.get("responses_per_comparison", 0) <= MAX_RESPONSES:
            cleaned["responses_per_comparison"] = most
        return cleaned

    def _take(self, preset: Preset) -> None:
        project = self.instance
        axes = [dict(axis) for axis in preset.axes]
        if [axis["key"] for axis in axes] != project.axis_keys:
            if project.pk and project.batches.exists():
                self.add_error(
                    "asks",
                    f"This project has batches that compare on {' and '.join(project.axis_keys)}, "
                    f"“{preset.title}” on {' and '.join(axis['key'] for axis in axes)}. "
                    "Start a new project for it.",
                )
                return
            project.axes = axes
        project.interface, project.protocol = preset.interface, preset.protocol.as_json()

    def clean_lease_minutes(self) -> int:
        minutes: int = self.cleaned_data["lease_minutes"]
        if not 1 <= minutes <= 24 * 60:
            raise forms.ValidationError("Give 1 to 1,440 minutes.")
        return minutes

    def clean_overlap(self) -> int:
        overlap: int = self.cleaned_data["overlap"]
        if problem := too_many_people(overlap):
            raise forms.ValidationError(problem)
        return overlap


def _as_text(protocol: Protocol) -> str:
    return json.dumps(protocol.as_json(), indent=1, ensure_ascii=False)


class NewProjectForm(ProjectForm):
    """The same questions, and an address made from the name."""

    class Meta(ProjectForm.Meta):
        fields = ("name", "description", "guidelines", "overlap", "responses_per_comparison")  # type: ignore[assignment]

    clean_lease_minutes = None  # type: ignore[assignment]
    details = None  # type: ignore[assignment]
    judge_again = None  # type: ignore[assignment]

    def __init__(self, *args: Any, by: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.by = by

    def clean_name(self) -> str:
        """The address is the name's, for others than staff with four random letters behind it.

        Whether the plain one is taken would tell that there is such a project.
        """
        name: str = self.cleaned_data["name"]
        slug = slugify(name)[:60]
        if not slug or slug in RESERVED_SLUGS:
            raise forms.ValidationError("Use letters or digits in the name.")
        if not self.by.is_staff:
            slug = f"{slug[:55]}-{get_random_string(4, 'abcdefghijkmnpqrstuvwxyz23456789')}"
        if Project.objects.filter(slug=slug).exists():
            raise forms.ValidationError("A project with this name exists. Choose another name.")
        self.instance.slug = slug
        return name


class MemberForm(forms.Form):
    """Somebody joins the project, or gets another role in it."""

    who = forms.CharField(
        label="User name or e-mail address",
        max_length=254,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
        help_text="Somebody you don't share a project with gets a link to join.",
    )
    role = forms.ChoiceField(choices=Membership.Role.choices)

    def clean_who(self) -> str:
        who: str = self.cleaned_data["who"].strip()
        return who
