"""`manage.py run_filters PROJECT`: read what no filter has read yet, and print what each one flags."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from annotation.data.filtering import cost_of, run_filters, setting_of
from annotation.data.filters.table import FILTERS
from annotation.models import Project


class Command(BaseCommand):
    help = "Run the filters over a project's prompts and responses, from where the last run ended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("project", help="the project's short name (its slug)")
        parser.add_argument("--filter", action="append", choices=list(FILTERS), dest="filters")

    def handle(self, *args: Any, **options: Any) -> None:
        project = Project.objects.filter(slug=options["project"]).first()
        if project is None:
            known = ", ".join(Project.objects.values_list("slug", flat=True)) or "none yet"
            raise CommandError(f"There is no project {options['project']!r}; there are: {known}.")
        run_filters(project, options["filters"])
        for key in options["filters"] or FILTERS:
            setting = setting_of(project, key)
            cost = cost_of(setting)
            self.stdout.write(
                f"{FILTERS[key].name:<18} from {setting.threshold:g}: {cost.prompts} of "
                f"{setting.n_prompts} prompts, {cost.responses} of {setting.n_responses} responses, "
                f"{cost.judgments} judgments ({setting.get_action_display()})"
            )
