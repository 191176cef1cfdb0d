"""A cache that can't be reached is empty: pages then take longer, and that is all."""

import logging
from collections.abc import Callable
from typing import Any

from django.core.cache.backends import redis
from redis.exceptions import ConnectionError, TimeoutError

log = logging.getLogger(__name__)


class RedisCache(redis.RedisCache):
    """Django's, for keeping what can be reckoned anew and for counting how often somebody asks.

    While Redis is away nothing is kept, nothing is found and nothing is counted: sign-ins and
    requests are then not held back, because otherwise nobody could sign in at all.
    """

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_unless_away(super().add, args, kwargs, instead=True))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return _unless_away(super().get, (key, default, version), {}, instead=default)

    def set(self, *args: Any, **kwargs: Any) -> None:
        _unless_away(super().set, args, kwargs, instead=None)

    def touch(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_unless_away(super().touch, args, kwargs, instead=False))

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_unless_away(super().delete, args, kwargs, instead=False))


def _unless_away(act: Callable[..., Any], args: Any, kwargs: Any, *, instead: Any) -> Any:
    try:
        return act(*args, **kwargs)
    except (ConnectionError, TimeoutError) as error:
        log.warning("The cache can't be reached: %s", error)
        return instead
