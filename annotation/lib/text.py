"""Text as every database here can keep it."""


def storable(text: str, nul: str = "") -> str:
    """The text with `nul` for each NUL, which PostgreSQL refuses, and ? for half a surrogate pair.

    >>> storable("a\\x00b")
    'ab'
    """
    return text.replace("\x00", nul).encode("utf-8", "replace").decode("utf-8")
