"""A cache that can't be reached counts as empty: pages are slower, and nothing fails."""

import logging
from collections.abc import Callable
from typing import Any

from django.core.cache.backends import redis
from redis.exceptions import ConnectionError, TimeoutError

log = logging.getLogger(__name__)


class RedisCache(redis.RedisCache):
    """Django's Redis cache, for values that can be computed again and for rate limits.

    While Redis can't be reached nothing is stored or counted. Rate limits are then off, because
    otherwise nobody could sign in.
    """

    def add(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_or_default(super().add, args, kwargs, default=True))

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return _or_default(super().get, (key, default, version), {}, default=default)

    def set(self, *args: Any, **kwargs: Any) -> None:
        _or_default(super().set, args, kwargs, default=None)

    def touch(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_or_default(super().touch, args, kwargs, default=False))

    def delete(self, *args: Any, **kwargs: Any) -> bool:
        return bool(_or_default(super().delete, args, kwargs, default=False))


def _or_default(method: Callable[..., Any], args: Any, kwargs: Any, *, default: Any) -> Any:
    try:
        return method(*args, **kwargs)
    except (ConnectionError, TimeoutError) as error:
        log.warning("The cache can't be reached: %s", error)
        return default
