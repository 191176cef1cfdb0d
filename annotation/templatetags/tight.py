"""`{% tight %}…{% endtight %}`: the indentation of templates stays in the templates."""

import re

from django import template
from django.template.base import NodeList, Parser, Token
from django.template.context import Context
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

# Only between two tags, and a line break is left: what a browser shows is the same. Text that people
# wrote is escaped, so it has no tags in it.
BETWEEN_TAGS = re.compile(r">[ \t]*\n\s*<")


class TightNode(template.Node):
    def __init__(self, nodes: NodeList) -> None:
        self.nodelist = nodes

    def render(self, context: Context) -> SafeString:
        return mark_safe(BETWEEN_TAGS.sub(">\n<", self.nodelist.render(context)))  # noqa: S308


@register.tag
def tight(parser: Parser, token: Token) -> TightNode:
    """Leave out the white space between tags except for one line break."""
    nodes = parser.parse(("endtight",))
    parser.delete_first_token()
    return TightNode(nodes)
