"""The hash behind pseudonyms: with PSEUDONYM_KEY, which has nothing to do with sessions."""

from django.conf import settings
from django.utils.crypto import salted_hmac


def keyed_hash(salt: str, value: str) -> str:
    """Hexadecimal HMAC of `value`; without the key nobody can tell whose it is."""
    return salted_hmac(salt, value, secret=settings.PSEUDONYM_KEY).hexdigest()
