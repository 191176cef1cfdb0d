"""Forms of a person's own pages: preferences and API tokens."""

from typing import Any, ClassVar

from django import forms
from django.conf import settings
from django.utils.translation import gettext_lazy as _

from annotation.models import ApiToken, User

# Days that a token may live.
LIFETIMES = {7: "a week", 30: "30 days", 90: "90 days", 365: "a year"}


class PreferencesForm(forms.ModelForm):  # type: ignore[type-arg]
    """The preferences of one person."""

    class Meta:
        model = User
        fields = ("language", "shortcuts_enabled", "harmful_material", "break_minutes")
        labels: ClassVar[dict[str, Any]] = {
            "language": _("Language"),
            "shortcuts_enabled": _("Single-key shortcuts"),
            "harmful_material": _("Harmful content"),
            "break_minutes": _("Break reminder (minutes)"),
        }
        help_texts: ClassVar[dict[str, Any]] = {
            "language": _("Prompts and responses stay in the language they were written in."),
            "shortcuts_enabled": _(
                "Turn them off if they conflict with a screen reader or speech input."
            ),
            "harmful_material": _("Nobody sees your choice."),
            "break_minutes": _("0 turns the reminder off."),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        language = self.fields["language"]
        assert isinstance(language, forms.TypedChoiceField)
        language.choices = [("", _("Browser default")), *settings.LANGUAGES]

    def clean_break_minutes(self) -> int:
        minutes: int = self.cleaned_data["break_minutes"]
        if minutes and not 10 <= minutes <= 240:
            raise forms.ValidationError(_("Give 10 to 240 minutes, or 0 for no reminder."))
        return minutes


class TokenForm(forms.Form):
    """Name, scopes and lifetime of a new token."""

    name = forms.CharField(max_length=80, label="Name", help_text="For example “notebook”.")
    scopes = forms.MultipleChoiceField(
        label="May",
        choices=ApiToken.Scope.choices,
        initial=[ApiToken.Scope.READ],
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
        help_text="Nothing beyond your roles. Choose as little as the script needs.",
    )
    days = forms.TypedChoiceField(label="Expires after", coerce=int)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        days = self.fields["days"]
        assert isinstance(days, forms.TypedChoiceField)
        most = settings.TOKEN_MAX_DAYS
        lifetimes = [n for n in LIFETIMES if n <= most] or [most]
        days.choices = [(n, LIFETIMES.get(n, f"{n} days")) for n in lifetimes]
        days.initial = max([n for n in lifetimes if n <= 90] or lifetimes[:1])
