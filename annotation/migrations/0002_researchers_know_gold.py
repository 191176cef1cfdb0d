from django.db import migrations


def mark_researchers(apps, schema_editor):
    """They read the prompts of gold items: as annotators later on they are measured by none."""
    membership = apps.get_model("annotation", "Membership")
    event = apps.get_model("annotation", "Event")
    membership.objects.filter(role="researcher").update(knows_gold=True)
    # Who was a researcher before is in the project's log, by user name.
    for project, who in event.objects.filter(verb="set role", data__role="researcher").values_list(
        "project", "target"
    ):
        membership.objects.filter(project=project, user__username=who).update(knows_gold=True)


class Migration(migrations.Migration):
    dependencies = [("annotation", "0001_initial")]

    operations = [migrations.RunPython(mark_researchers, migrations.RunPython.noop)]
