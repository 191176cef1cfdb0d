"""The admin site of this installation."""

from django.contrib.admin.apps import AdminConfig


class OneDoorAdminConfig(AdminConfig):
    """Django's admin site, with the sign-in page of everything else."""

    default_site = "config.admin_site.OneDoorAdminSite"

    def ready(self) -> None:
        super().ready()
        from config import checks  # noqa: F401  # registers them
