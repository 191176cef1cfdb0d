"""Fill a database with people and a queue of comparisons, in SQL, so that a million take seconds.

    DATABASE_URL=… python -m benchmarks.load_queue --comparisons 1000000 --people 64

Prints one JSON object: the project's slug and each person's name, API token and session cookie.
One row of each kind is made by the models; the rest are copies of it with other numbers, so a column
that a model gains is filled here too.
"""

import argparse
import json
import os
import sys
from typing import Any

PROMPT = (
    "My neighbour asked me to look after number {n} of her plants while she is away for two weeks. "
    "How often should I water it, and how do I see that it had too much?"
)
ANSWER = (
    "Answer {n}: **Once a week is enough** for most plants in a pot.\n\n"
    "1. Put a finger into the soil: if it is dry two centimetres down, water it.\n"
    "2. Pour slowly until water comes out below, and empty the saucer.\n\n"
    "Yellow leaves and a smell of mould say that it had too much."
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--comparisons", type=int, required=True)
    parser.add_argument("--people", type=int, required=True)
    parser.add_argument("--overlap", type=int, default=1)
    parser.add_argument("--responses", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    made = fill(
        comparisons=arguments.comparisons,
        people=arguments.people,
        overlap=arguments.overlap,
        responses=arguments.responses,
    )
    json.dump(made, sys.stdout)


def fill(*, comparisons: int, people: int, overlap: int = 1, responses: int = 2) -> dict[str, Any]:
    """A project with an open batch of so many comparisons; who may judge it, with their keys."""
    from django.db import connection, transaction
    from django.utils import timezone

    from annotation.models import Batch, Comparison, Project, Prompt, Response, Source

    with transaction.atomic():
        project = Project.objects.create(slug="load", name="Load", overlap=overlap)
        source = Source.objects.create(
            project=project, name="Made up", licence="CC0-1.0", signed_off_at=timezone.now()
        )
        batch = Batch.objects.create(
            project=project,
            name="Queue",
            state=Batch.State.OPEN,
            overlap=overlap,
            opened_at=timezone.now(),
        )
        prompt = Prompt.objects.create(
            project=project, source=source, messages=[{"role": "user", "content": "0"}]
        )
        comparison = Comparison.objects.create(
            batch=batch, prompt=prompt, needed=overlap, shuffle=2.0
        )
        response = Response.objects.create(comparison=comparison, text="0", source="policy")
        first = max(prompt.pk, comparison.pk, response.pk) + 1
        sqlite = connection.vendor == "sqlite"
        uid = "printf('%032x', {0})" if sqlite else "cast(lpad(to_hex({0}), 32, '0') as uuid)"
        digest = "printf('%064x', {0})" if sqlite else "lpad(to_hex({0}), 64, '0')"
        chance = "abs(random() % 1000000) / 1000000.0" if sqlite else "random()"
        messages = json.dumps([{"role": "user", "content": PROMPT.format(n="#")}])
        before, after = (_quoted(part) for part in messages.split("#"))
        text = f"{before} || n || {after}"
        row = f"n + {first}"
        _copies(
            prompt,
            comparisons,
            {
                "id": row,
                "uid": uid.format(row),
                "sha256": digest.format(row),
                "messages": text if sqlite else f"cast({text} as jsonb)",
            },
        )
        _copies(
            comparison,
            comparisons,
            {"id": row, "prompt_id": row, "shuffle": f"cast({chance} as real)"},
        )
        before, after = (_quoted(part) for part in ANSWER.split("{n}"))
        for each in range(responses):
            # Each comparison's responses have ids of their own, next to each other.
            own = f"n * {responses} + {each + first}"
            _copies(
                response,
                comparisons,
                {
                    "id": own,
                    "uid": uid.format(own),
                    "comparison_id": row,
                    "text": f"{before} || {each + 1} || {after}",
                },
            )
        Response.objects.filter(pk=response.pk).delete()
        Comparison.objects.filter(pk=comparison.pk).delete()
        Prompt.objects.filter(pk=prompt.pk).delete()
        if not sqlite:
            _move_sequences((Prompt, Comparison, Response))
        persons = [_person(project, number) for number in range(people)]
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    return {"slug": project.slug, "people": persons}


def _copies(row: Any, n: int, others: dict[str, str]) -> None:
    """Insert n copies of a model's row; `others` gives columns as SQL in `n`, which counts from 0."""
    from django.db import connection

    table = row._meta.db_table
    columns = [field.column for field in row._meta.concrete_fields]
    values = ", ".join(others.get(name, f'one."{name}"') for name in columns)
    names = ", ".join(f'"{name}"' for name in columns)
    series = (
        f"(WITH RECURSIVE s(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM s WHERE n + 1 < {n}) "
        "SELECT n FROM s)"
        if connection.vendor == "sqlite"
        else f"generate_series(0, {n - 1})"
    )
    name = "AS s" if connection.vendor == "sqlite" else "AS s(n)"
    with connection.cursor() as cursor:
        cursor.execute(
            f'INSERT INTO "{table}" ({names}) SELECT {values} FROM {series} {name}, '
            f'(SELECT * FROM "{table}" WHERE id = {row.pk}) AS one'
        )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _move_sequences(models: Any) -> None:
    from django.core.management.color import no_style
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), models):
            cursor.execute(statement)


def _person(project: Any, number: int) -> dict[str, str]:
    """An annotator with an API token and a session, as a sign-in would leave them."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    from annotation.models import ApiToken, Membership, User
    from annotation.tokens import create_token

    user = User.objects.create(username=f"person{number}", password="!")
    Membership.objects.create(user=user, project=project, role=Membership.Role.ANNOTATOR)
    _, token = create_token(user, name="load", days=1, scopes=ApiToken.Scope.values)
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.create()
    assert session.session_key is not None
    return {"name": user.username, "token": token, "session": session.session_key}


if __name__ == "__main__":
    main()
