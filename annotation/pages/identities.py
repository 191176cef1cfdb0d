"""What people and models are called on a page, by the role of who reads it.

Reviewers and admins see user names, as on the pages of quality. Researchers see the pseudonyms that
exports have. Who wrote a response is for admins and researchers: a reviewer decides without knowing.
"""

from dataclasses import dataclass
from typing import Any

from annotation.access import CAN_EXPORT, CAN_REVIEW
from annotation.data.preferences import annotator_id
from annotation.models import Project, User


@dataclass(frozen=True)
class Identity:
    """One person: what they are called here, and the id of their page where the reader may open it."""

    name: str
    is_simulated: bool
    page: int | None


class Identities:
    """The names of a project's people and models for one role."""

    def __init__(self, project: Project, role: str) -> None:
        self.project = project
        self.shows_names = role in CAN_REVIEW
        self.shows_writers = role in CAN_EXPORT
        self._models: dict[str, str] | None = None

    def person(self, user: User, *, is_imported: bool = False, is_ruling: bool = False) -> Identity:
        """What this person is called."""
        if self.shows_names:
            has_page = not is_imported and not is_ruling
            return Identity(user.username, user.is_simulated, user.pk if has_page else None)
        pseudonym = annotator_id(self.project, user, is_imported=is_imported, is_ruling=is_ruling)
        return Identity(pseudonym, user.is_simulated, None)

    def staff(self, user: User | None) -> str:
        """What a reviewer or admin who acted is called: a user name where names are shown."""
        if user is None:
            return ""
        return user.username if self.shows_names else "a member of the project"

    def writer(self, source: str) -> str:
        """The name of the model that wrote a response; "" where the reader must not know."""
        if not self.shows_writers or not source:
            return ""
        return self._names().get(source.removeprefix("policy "), source)

    def models(self) -> list[tuple[str, str]]:
        """(source of its responses, name) of the project's policies; none where it must not be known."""
        if not self.shows_writers:
            return []
        return sorted(((f"policy {uid}", name) for uid, name in self._names().items()), key=str)

    def _names(self) -> dict[str, str]:
        if self._models is None:
            # rlhf's rows, through their reverse relation: annotation's code knows nothing of them.
            checkpoints: Any = getattr(self.project, "checkpoints")  # noqa: B009
            policies = checkpoints.filter(kind="policy").values_list("uid", "name")
            self._models = {str(uid): name for uid, name in policies}
        return self._models
