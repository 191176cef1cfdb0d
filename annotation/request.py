"""What a request says, read and kept safely: who asks, numbers, and forms about a row."""

from typing import Any

from django.forms import ModelForm

from annotation.models import User


def who_asks(request: Any) -> User:
    """Who asks, where a view has already seen to it that somebody is signed in."""
    assert isinstance(request.user, User)
    return request.user


def whole_number(value: str | None) -> int:
    """A whole number that was sent; 0, which nothing is, for anything else."""
    # str.isdigit takes "²" for a digit, and databases have no integers of twenty places.
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 18 else 0


def measured_seconds(value: str) -> float | None:
    """Seconds as a page measured them; None for what is no number."""
    try:
        return float(value)
    except ValueError:
        return None


def save_asked(form: "ModelForm[Any]") -> None:
    """Save a valid form's own columns: somebody else may have changed the others since it was read."""
    form.save(commit=False).save(update_fields=form._meta.fields)
