"""Markdown by a model or a person, in a template: `{{ text|markdown }}`."""

from django import template
from django.utils.safestring import SafeString

from annotation.lib.markdown import render_markdown
from annotation.models import Prompt, User

register = template.Library()


@register.filter
def covers(user: User, prompt: Prompt) -> bool:
    """`{% if user|covers:prompt %}`: whether this is covered until they uncover it."""
    return user.covers(prompt)


@register.filter
def markdown(text: str) -> SafeString:
    return render_markdown(text or "")
