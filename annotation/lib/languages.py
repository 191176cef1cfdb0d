"""Which pages have no translation yet."""

from collections.abc import Callable
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])


def english_only(view: View) -> View:
    """Mark a page whose template is in no catalog (`locale/make.py` lists those that are).

    It stays English as a whole. Otherwise the phrases that it shares with other pages would be
    translated, and the rest would not (`config/middleware.py`).
    """
    view.is_english_only = True  # type: ignore[attr-defined]
    return view
