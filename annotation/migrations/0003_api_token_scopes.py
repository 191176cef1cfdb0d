from datetime import timedelta

from django.db import migrations, models
from django.db.models import Q
from django.utils import timezone

ALL = ["read", "judge", "export", "write", "admin"]


def bound(apps, schema_editor):
    """Tokens from before keep what they could do, and end after a year."""
    tokens = apps.get_model("annotation", "ApiToken").objects
    tokens.update(scopes=ALL)
    year = timezone.now() + timedelta(days=365)
    tokens.filter(Q(expiry=None) | Q(expiry__gt=year)).update(expiry=year)


class Migration(migrations.Migration):
    dependencies = [("annotation", "0002_researchers_know_gold")]

    operations = [
        migrations.AddField(
            model_name="apitoken",
            name="scopes",
            field=models.JSONField(
                default=list,
                help_text="What it may do of what its owner may: annotation/scopes.py.",
            ),
        ),
        migrations.AddField(
            model_name="apitoken",
            name="last_used_from",
            field=models.GenericIPAddressField(blank=True, null=True),
        ),
        migrations.RunPython(bound, migrations.RunPython.noop),
    ]
