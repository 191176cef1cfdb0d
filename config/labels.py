"""What a field of a form is called where only its name came back, for who sent it signed out."""

import sys

from django.forms import BaseForm
from django.forms.utils import pretty_name
from django.http import HttpRequest
from django.utils.translation import gettext, gettext_noop

# Of fields that a template writes itself, `view:field` where pages differ.
WRITTEN = {
    "licence": gettext_noop("Licence"),
    "note": gettext_noop("Why"),
    "reason": gettext_noop("Why?"),
    "review_case:note": gettext_noop("In your words"),
    "rewrite": gettext_noop("A better answer"),
    "rows": gettext_noop("or rows"),
    "skip_other": gettext_noop("Another reason"),
    "text": gettext_noop("Your message"),
}


def label_of(request: HttpRequest, name: str) -> str:
    """As on the form that was sent: its view's module holds the class, or a template wrote it."""
    field = name.rsplit("-", 1)[-1]  # without the prefix of one form among several
    view = request.resolver_match
    if view is not None:
        for form in vars(sys.modules[view.func.__module__]).values():
            if isinstance(form, type) and issubclass(form, BaseForm):
                known = getattr(form, "base_fields", {}).get(field)
                if known is not None:
                    return str(known.label or pretty_name(field))
        if written := WRITTEN.get(f"{view.view_name}:{field}", WRITTEN.get(field)):
            return gettext(written)
    return pretty_name(name)
