"""Which request is being answered: its id and the client's address, for every log line."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True)
class RequestContext:
    """`id` is random and in the response's header `X-Request-Id`."""

    id: str = ""
    address: str = ""


current: ContextVar[RequestContext] = ContextVar("request", default=RequestContext())  # noqa: B039
