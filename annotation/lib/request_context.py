"""Which request is being answered: its id, the client's address and session, for logs and notices."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class RequestContext:
    """`id` is random and in the response's header `X-Request-Id`; `session` is "" when signed out."""

    id: str = ""
    address: str = ""
    session: str = ""


current: ContextVar[RequestContext] = ContextVar("request", default=RequestContext())  # noqa: B039
