"""`age -d -i key backup.tar.age | manage.py restore`: a backup into an empty installation."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from rlhf.management.commands.backup import DATABASES, END, _where


class Command(BaseCommand):
    help = (
        "Read a backup from standard input into an empty database and data folder; nothing changes "
        "unless it is whole. Afterwards: manage.py migrate, manage.py audit_judgments."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        self._refuse_if_in_use()
        with tempfile.TemporaryDirectory(dir=settings.DATA_DIR, prefix=".restore-") as name:
            folder = Path(name)
            try:
                with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as packed:
                    packed.extractall(folder, filter="data")
            except (tarfile.TarError, OSError, EOFError) as problem:
                raise CommandError(f"The backup can't be read: {problem}") from problem
            if not (folder / END).exists():
                raise CommandError("The backup is cut off: nothing was restored.")
            database = folder / DATABASES[connection.vendor]
            if not database.exists():
                raise CommandError(
                    f"The backup is not of {connection.vendor}: set DATABASE_URL to the kind it is of."
                )
            _load(database)
            for path in (folder / "files").iterdir():
                target = settings.DATA_DIR / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                path.replace(target)
        self.stdout.write("Restored. Next: manage.py migrate, then manage.py audit_judgments.")

    def _refuse_if_in_use(self) -> None:
        if connection.introspection.table_names():
            raise CommandError("The database has tables: restore into an empty one.", returncode=2)
        if any((settings.DATA_DIR / name).exists() for name in ("runs", "snapshots")):
            raise CommandError(f"{settings.DATA_DIR} has files already.", returncode=2)


def _load(database: Path) -> None:
    given = connection.settings_dict
    connection.close()
    if connection.vendor == "sqlite":
        for end in ("", "-wal", "-shm"):
            Path(f"{given['NAME']}{end}").unlink(missing_ok=True)
        shutil.move(database, given["NAME"])
        return
    environment = {**os.environ, "PGPASSWORD": str(given["PASSWORD"] or "")}
    command = ["pg_restore", "--no-owner", "--exit-on-error", *_where(given), str(database)]
    if subprocess.run(command, env=environment, check=False).returncode:
        raise CommandError("pg_restore failed; see above.")
