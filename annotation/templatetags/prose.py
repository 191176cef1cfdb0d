"""What a model or a person wrote, in a template: `{{ text|markdown }}`."""

from django import template
from django.utils.safestring import SafeString

from annotation.rendering import render_markdown

register = template.Library()


@register.filter
def markdown(text: str) -> SafeString:
    return render_markdown(text or "")
