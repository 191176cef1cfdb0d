"""What databases have run stays as it was: `migrate` knows a migration by its name alone."""

import hashlib

import pytest
from django.conf import settings

FIRST = {
    "annotation": "f7088ce3950b2af2271cf7807ea2dc4b866eb13468451f932f17edcf53e5d1db",
    "rlhf": "912342f1eb544dc58061982f43a730640171d0f20d01fb860be1a0b4d726b87d",
}


@pytest.mark.parametrize("app", FIRST)
def test_a_first_migration_is_never_rewritten(app):
    found = (settings.BASE_DIR / app / "migrations" / "0001_initial.py").read_bytes()
    told = "add a migration (manage.py makemigrations) instead of changing one that was run"
    assert hashlib.sha256(found).hexdigest() == FIRST[app], told
