import hashlib

from django.conf import settings


def test_vendored_files_are_the_ones_that_were_reviewed():
    folder = settings.BASE_DIR / "static" / "vendor"
    for line in (folder / "vendor.lock").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
