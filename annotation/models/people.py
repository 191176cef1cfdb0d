"""Accounts, and the tokens with which their programs sign in."""

from allauth.mfa.models import Authenticator
from django.conf import settings
from django.contrib.auth.models import AbstractUser
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from knox.models import AbstractAuthToken

from annotation.models.content import Prompt
from annotation.models.projects import Membership, Project


class User(AbstractUser):  # type: ignore[django-manager-missing]  # knox is untyped
    """A person, or a program that plays one and says so (`is_simulated`)."""

    is_simulated = models.BooleanField(
        default=False, help_text="Played by a program; shown as simulated wherever it appears."
    )
    shortcuts_enabled = models.BooleanField(
        default=True, help_text="Single-key shortcuts on the ranking page (WCAG 2.1.4)."
    )

    class HarmfulMaterial(models.TextChoices):
        WARN = "warn", _("Cover it, with a warning, until I uncover it")
        SHOW = "show", _("Show it like any other")
        AVOID = "avoid", _("Don't give me any")

    language = models.CharField(
        max_length=8,
        blank=True,
        choices=settings.LANGUAGES,
        help_text="Of the interface; empty: as the browser asks.",
    )
    harmful_material = models.CharField(
        max_length=8,
        choices=HarmfulMaterial.choices,
        default=HarmfulMaterial.WARN,
        help_text="What to do with comparisons whose prompt is known as harmful.",
    )
    break_minutes = models.PositiveSmallIntegerField(
        default=45, help_text="Minutes of unbroken work after which a break is suggested; 0: never."
    )

    tombstone = models.CharField(
        max_length=16,
        blank=True,
        help_text="Set when the person was erased: from then on their judgments' pseudonym is made of it.",
    )

    def __str__(self) -> str:
        return self.username

    @property
    def is_admin(self) -> bool:
        """True for staff and for admins of any project."""
        return (
            self.is_staff
            or self.is_superuser
            or Membership.objects.filter(user=self, role=Membership.Role.ADMIN).exists()
        )

    @property
    def lacks_second_factor(self) -> bool:
        """Whether REQUIRE_MFA asks this person for a second factor that is not set up yet."""
        if settings.REQUIRE_MFA == "nobody" or (
            settings.REQUIRE_MFA == "admins" and not self.is_admin
        ):
            return False
        factors = Authenticator.objects.filter(user_id=self.pk)
        return not factors.exclude(type=Authenticator.Type.RECOVERY_CODES).exists()

    def covers(self, prompt: "Prompt") -> bool:
        """Whether the texts of this prompt are covered until this person uncovers them."""
        return (
            prompt.risk == Prompt.Risk.HARMFUL
            and self.harmful_material != User.HarmfulMaterial.SHOW
        )


class ApiToken(AbstractAuthToken):  # type: ignore[misc]
    """A key to the REST API: only its hash is kept, so it can be shown once and never again."""

    class Scope(models.TextChoices):
        READ = "read", "read: projects, batches, prompts, rounds, figures"
        JUDGE = "judge", "judge: get comparisons and send answers"
        EXPORT = "export", "export: judgments and snapshots"
        WRITE = "write", "write: import prompts, fill batches, freeze snapshots"
        ADMIN = "admin", "admin: assignment rules, rounds, jobs"

    name = models.CharField(max_length=80)
    scopes = models.JSONField(
        default=list, help_text="What it may do of what its owner may: annotation/scopes.py."
    )
    last_used_at = models.DateTimeField(null=True, blank=True)
    last_used_from = models.GenericIPAddressField(null=True, blank=True)

    class Meta:
        ordering = ["-created"]

    def __str__(self) -> str:
        return f"{self.name} ({self.token_key}…)"

    @property
    def is_expired(self) -> bool:
        return self.expiry is not None and self.expiry < timezone.now()


class Invitation(models.Model):
    """A link by which one person joins a project: it works once and ends. Only its hash is kept."""

    project = models.ForeignKey(Project, on_delete=models.CASCADE, related_name="invitations")
    role = models.CharField(max_length=12, choices=Membership.Role.choices)
    who = models.CharField(max_length=254, help_text="As the admin typed it; identifies nobody.")
    secret_sha256 = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    accepted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    accepted_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.who} as {self.role}"


class AccountNotice(models.Model):
    """Something that happened with an account, for its person to recognize or not."""

    class Kind(models.TextChoices):
        SIGN_IN = "sign_in", _("Sign-in from a new device")
        PASSWORD = "password", _("New password")
        TOKEN = "token", _("New API token")
        FACTOR = "factor", _("Second factor changed")
        CONNECTION = "connection", _("Single sign-on changed")
        ADDRESS = "address", _("E-mail address changed")
        EXPORT = "export", _("Your data was downloaded")
        ERASURE = "erasure", _("Decision about erasing your data")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="notices"
    )
    kind = models.CharField(max_length=12, choices=Kind.choices)
    detail = models.CharField(max_length=120, blank=True, help_text="A device, or a token's name.")
    address = models.GenericIPAddressField(null=True, blank=True)
    at = models.DateTimeField(default=timezone.now)
    seen_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-at", "-id"]

    def __str__(self) -> str:
        return (
            f"{self.get_kind_display()}: {self.detail}" if self.detail else self.get_kind_display()
        )


class ErasureRequest(models.Model):
    """A person's wish to be erased, and what was decided about it, by whom and why."""

    class State(models.TextChoices):
        ASKED = "asked", _("asked")
        DONE = "done", _("erased")
        REFUSED = "refused", _("refused")
        WITHDRAWN = "withdrawn", _("withdrawn")

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="erasure_requests"
    )
    state = models.CharField(max_length=10, choices=State.choices, default=State.ASKED)
    asked_at = models.DateTimeField(default=timezone.now)
    decided_at = models.DateTimeField(null=True, blank=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    reason = models.CharField(max_length=500, blank=True, help_text="Of the decision.")
    report = models.JSONField(
        default=dict,
        blank=True,
        help_text="What was deleted, what stays, and which snapshots hold it.",
    )

    class Meta:
        ordering = ["-asked_at", "-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["user"], condition=Q(state="asked"), name="one_open_erasure_request"
            )
        ]

    def __str__(self) -> str:
        return f"{self.user}: {self.state}"
