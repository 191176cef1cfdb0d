"""`manage.py backup | age -r age1… > backup.tar.age`: database and files as one stream."""

import io
import os
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import IO, Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

LEFT_OUT = {"cache", "queue", "static"}
"""Folders that are made again by themselves."""
END = "backup-is-complete"
"""The last member: a stream without it was cut off."""
DATABASES = {"sqlite": "db.sqlite3", "postgresql": "db.dump"}


class Command(BaseCommand):
    help = (
        "Write the database, then the files of the data folder, as a tar stream to standard output. "
        "Encrypt it in the pipe, so that nothing lies readable on a disk: "
        "manage.py backup | age -r RECIPIENT > backup.tar.age"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--plain", action="store_true", help="also to a terminal or a file, unencrypted"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        out = sys.stdout.buffer
        if not options["plain"] and not _is_pipe(out):
            raise CommandError(
                "The backup holds passwords' hashes, keys and people's texts. Pipe it into a program "
                "that encrypts, such as age, or add --plain.",
                returncode=2,
            )
        with tempfile.TemporaryDirectory(dir=settings.DATA_DIR, prefix=".backup-") as folder:
            # The database first: a file is written before the row that names it.
            database = Path(folder) / DATABASES[connection.vendor]
            _dump(database)
            with tarfile.open(fileobj=out, mode="w|") as packed:
                packed.add(database, arcname=database.name)
                for path in sorted(settings.DATA_DIR.iterdir()):
                    if not _is_left_out(path):
                        packed.add(path, arcname=f"files/{path.name}", filter=_if_there)
                packed.addfile(tarfile.TarInfo(END), io.BytesIO())
        out.flush()


def _is_pipe(out: IO[bytes]) -> bool:
    return os.fstat(out.fileno()).st_mode & 0o170000 == 0o010000


def _is_left_out(path: Path) -> bool:
    name = path.name
    return name in LEFT_OUT or name.startswith(("db.sqlite3", "test.sqlite3", ".backup-"))


def _if_there(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Sockets and devices have no content."""
    return member if member.isreg() or member.isdir() or member.issym() else None


def _dump(path: Path) -> None:
    given = connection.settings_dict
    if connection.vendor == "sqlite":
        # Not a copy of the file, which may be inconsistent while it is in use.
        source = sqlite3.connect(given["NAME"])
        with source, sqlite3.connect(path) as target:
            source.backup(target)
        return
    environment = {**os.environ, "PGPASSWORD": str(given["PASSWORD"] or "")}
    command = ["pg_dump", "--format=custom", f"--file={path}", *_where(given)]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise CommandError("pg_dump failed; see above.")


def _where(given: dict[str, Any]) -> list[str]:
    """Options of PostgreSQL's programs for the database of the settings."""
    options = {"--host": given["HOST"], "--port": given["PORT"], "--username": given["USER"]}
    where = [f"{name}={value}" for name, value in options.items() if value]
    return [*where, "--no-password", f"--dbname={given['NAME']}"]
