"""`{% kept letter=letter flags=response.flags %}…{% endkept %}`: the same values, the same HTML.

A block whose HTML depends on few values (buttons and labels, not people's texts) is rendered once
per language and combination of them, in each process. Inside, nothing but these values is there: no
request, no token, no other name of the page. So nothing that is one person's can be kept by mistake.
"""

from typing import Any

from django import template
from django.template.base import FilterExpression, NodeList, Parser, Token, token_kwargs
from django.template.context import Context
from django.utils.safestring import SafeString
from django.utils.translation import get_language

register = template.Library()

AT_MOST = 500


class KeptNode(template.Node):
    def __init__(self, values: dict[str, FilterExpression], nodes: NodeList) -> None:
        self.values, self.nodelist = values, nodes
        self.known: dict[Any, SafeString] = {}

    def render(self, context: Context) -> SafeString:
        values = {name: value.resolve(context) for name, value in self.values.items()}
        key = (get_language(), repr(values))
        html = self.known.get(key)
        if html is None:
            html = self.nodelist.render(context.new(values))
            if len(self.known) >= AT_MOST:
                self.known.clear()
            self.known[key] = html
        return html


@register.tag
def kept(parser: Parser, token: Token) -> KeptNode:
    """Render a block once for the same values, which are all that it sees."""
    words = token.split_contents()[1:]
    values = token_kwargs(words, parser)
    if words or not values:
        raise template.TemplateSyntaxError("kept takes name=value pairs, and at least one.")
    nodes = parser.parse(("endkept",))
    parser.delete_first_token()
    return KeptNode(values, nodes)
