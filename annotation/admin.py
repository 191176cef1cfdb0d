"""The operator's view of the rows. What people do goes through the pages; this is for looking."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from annotation.models import (
    ApiToken,
    Batch,
    Judgment,
    Membership,
    Project,
    Prompt,
    Snapshot,
    Source,
    User,
)


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """Rows that acts write and nobody edits: judgments and snapshots never change."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class MembershipInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Membership
    extra = 0
    autocomplete_fields = ["user"]


@admin.register(User)
class PersonAdmin(UserAdmin):  # type: ignore[type-arg]
    list_display = ["username", "email", "is_simulated", "is_active", "last_login"]
    list_filter = ["is_simulated", "is_active", "is_staff"]
    fieldsets = (
        *(UserAdmin.fieldsets or ()),
        (
            "Ground Control",
            {
                "fields": [
                    "is_simulated",
                    "shortcuts_enabled",
                    "language",
                    "harmful_material",
                    "break_minutes",
                ]
            },
        ),
    )


@admin.register(Project)
class ProjectAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "slug", "overlap", "is_demo", "created_at"]
    search_fields = ["name", "slug"]
    inlines = [MembershipInline]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        """What judgments were made under changes on the project's own pages, with its version."""
        if obj is None:
            return ["guideline_version", "reviewed_to"]
        return ["slug", "guidelines", "guideline_version", "axes", "reviewed_to"]

    def get_prepopulated_fields(
        self, request: HttpRequest, obj: Any = None
    ) -> dict[str, Sequence[str]]:
        return {} if obj else {"slug": ["name"]}


@admin.register(Source)
class SourceAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ["name", "project", "licence", "n_rows", "signed_off_by", "signed_off_at"]
    list_filter = ["project"]
    search_fields = ["name"]
    readonly_fields = ["sha256", "n_rows", "n_duplicates", "created_by", "created_at"]


@admin.register(Prompt)
class PromptAdmin(ReadOnly):
    list_display = ["__str__", "project", "split", "category", "risk", "source"]
    list_filter = ["project", "split", "risk"]
    list_select_related = ["project", "source"]


@admin.register(Batch)
class BatchAdmin(ReadOnly):
    list_display = ["name", "project", "state", "overlap", "is_imported", "created_at"]
    list_filter = ["project", "state", "is_imported"]


@admin.register(Judgment)
class JudgmentAdmin(ReadOnly):
    list_display = ["uid", "revision", "created_at", "excluded_at", "excluded_reason"]
    date_hierarchy = "created_at"


@admin.register(Snapshot)
class SnapshotAdmin(ReadOnly):
    list_display = ["__str__", "sha256", "created_by", "created_at"]
    list_filter = ["project"]


@admin.register(ApiToken)
class ApiTokenAdmin(ReadOnly):
    """Tokens can be revoked here; their text exists nowhere."""

    list_display = ["name", "user", "token_key", "created", "last_used_at", "expiry"]
    exclude = ["digest"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.is_superuser)
