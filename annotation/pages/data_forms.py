"""Forms of the data pages: filters, import and freezing."""

from typing import Any

from django import forms

from annotation.data.filters.table import FILTERS
from annotation.data.import_formats.shapes import SHAPES
from annotation.data.snapshot_options import SnapshotOptions
from annotation.models import Batch, Project

# Larger files are imported by command.
MAX_FILE = 64 * 2**20

KINDS = [
    ("everything", "Everything in the file: prompts, responses, judgments"),
    ("prompts", "Prompts only"),
]


class ImportForm(forms.Form):
    """A file with its format, its source and the sign-off."""

    kind = forms.ChoiceField(
        choices=KINDS,
        widget=forms.RadioSelect,
        initial="everything",
        label="Contents",
        required=False,
    )
    file = forms.FileField(
        label="File",
        help_text="JSON Lines, JSON, CSV, Excel (.xlsx), Parquet or Arrow; compressed with gzip or "
        f"zstd, or several in a zip; up to {MAX_FILE // 2**20} MiB.",
    )
    format = forms.ChoiceField(
        required=False,
        choices=[
            ("auto", "auto-detect"),
            *((name, shape.title) for name, shape in SHAPES.items()),
        ],
        initial="auto",
    )
    axis = forms.ChoiceField(
        required=False,
        label="Axis",
        help_text="Axis of “chosen” and the ranks in the file.",
    )
    name = forms.CharField(
        required=False,
        max_length=120,
        label="Source",
        help_text="Name of the dataset, as in citations.",
    )
    licence = forms.CharField(
        required=False, max_length=120, label="License", help_text="For example Apache-2.0."
    )
    url = forms.URLField(required=False, max_length=200, label="Link", assume_scheme="https")
    sign_off = forms.BooleanField(
        required=False,
        label="I read the license and sign this source off for training.",
        help_text="Training exports leave out sources that are not signed off.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["axis"] = forms.ChoiceField(
            required=False,
            choices=[(axis["key"], axis["name"]) for axis in project.axes],
            label="Axis",
            help_text="Axis of “chosen” and the ranks in the file.",
        )

    def clean_name(self) -> str:
        name = str(self.cleaned_data["name"]).strip()
        if not name:
            raise forms.ValidationError("Name the source.")
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("sign_off") and not str(cleaned.get("licence", "")).strip():
            self.add_error("licence", "Name the license before you sign the source off.")
        return cleaned

    def clean_file(self) -> Any:
        file = self.cleaned_data["file"]
        if file.size > MAX_FILE:
            raise forms.ValidationError(
                f"The file is {file.size / 2**20:.0f} MiB; {MAX_FILE // 2**20} MiB is the most. "
                "Split it into parts."
            )
        return file


class FreezeForm(forms.Form):
    """The batches of a snapshot, its options, and a note.

    No batch means all of them, unless the form had them to choose from (`choosing`).
    """

    choosing = forms.BooleanField(required=False, widget=forms.HiddenInput)
    batches = forms.ModelMultipleChoiceField(
        queryset=Batch.objects.none(), required=False, widget=forms.CheckboxSelectMultiple
    )
    votes = forms.ChoiceField(
        required=False,
        label="Rows",
        choices=[
            ("raw", "Every judgment"),
            ("consensus", "One consensus for each comparison"),
        ],
        help_text="A consensus weighs each vote by how reliable its annotator is.",
    )
    ties = forms.ChoiceField(
        required=False,
        label="Tied pairs",
        choices=[
            ("drop", "Leave out"),
            ("half", "Both directions, at half the weight"),
        ],
        help_text="In the files of pairs. The rankings always have their ties.",
    )
    axes = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    filters = forms.MultipleChoiceField(required=False, widget=forms.CheckboxSelectMultiple)
    note = forms.CharField(
        required=False,
        max_length=200,
        label="Note",
        help_text="Shown on the dataset card.",
    )

    def __init__(self, *args: Any, project: Project, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.fields["batches"] = forms.ModelMultipleChoiceField(
            queryset=project.batches.all(), required=False, widget=forms.CheckboxSelectMultiple
        )
        self.fields["axes"].choices = [  # type: ignore[attr-defined]
            (axis["key"], axis["name"]) for axis in project.axes
        ]
        # Whether one may exclude here is asked when the version is frozen.
        self.fields["filters"].choices = [  # type: ignore[attr-defined]
            (key, chosen.name) for key, chosen in FILTERS.items()
        ]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("choosing") and "batches" in cleaned and not cleaned["batches"]:
            self.add_error("batches", "Select at least one batch.")
        return cleaned

    @property
    def options(self) -> SnapshotOptions:
        """The options that were chosen; those that were not named are the usual ones."""
        chosen = self.cleaned_data
        return SnapshotOptions(
            ties=chosen.get("ties") or "drop",
            votes=chosen.get("votes") or "raw",
            axes=tuple(chosen.get("axes") or ()),
            filters=tuple(chosen.get("filters") or ()),
        )
