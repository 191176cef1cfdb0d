from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class AnnotationConfig(AppConfig):
    name = "annotation"
    verbose_name = "Annotation"

    def ready(self) -> None:
        post_migrate.connect(keep_word_indexes, sender=self)


def keep_word_indexes(using: str, **_: Any) -> None:
    """A migration that builds a table of SQLite again drops its triggers: they are created again."""
    from annotation.models import word_index

    connection = connections[using]
    if word_index.INDEXED["prompts"].table in connection.introspection.table_names():
        word_index.create(connection)
