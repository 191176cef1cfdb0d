"""One person's data: whole in the export, gone after the erasure, and nobody else's in either."""

import io
import json
import zipfile

import pytest
from allauth.account.models import EmailAddress
from allauth.usersessions.models import UserSession
from django.core.management import CommandError, call_command
from django.test import Client

from annotation.data import personal_data
from annotation.data.personal_data import PersonalDataError, erase
from annotation.data.preferences import annotator_id, preference_rows
from annotation.data.pseudonyms import rotate_pseudonyms
from annotation.data.snapshots import freeze_snapshot
from annotation.models import ErasureRequest, Event, Invitation, Judgment, User
from annotation.projects.members import accept, invite
from annotation.tokens import create_token
from tests.config.test_second_factor import add_app
from tests.factories import UserFactory, judged
from tests.signing_in import PASSWORD, sign_in_with_password

pytestmark = pytest.mark.django_db


@pytest.fixture
def known_ada(project, grace, ada, ben):
    """Ada with everything that can be stored about a person, and Ben's work next to hers."""
    User.objects.filter(pk=ada.pk).update(
        email="ada@example.org", first_name="Ada", last_name="Lovelace"
    )
    ada.refresh_from_db()
    accept(invite(project, "ada@example.org", "annotator", grace), ada)
    EmailAddress.objects.create(user=ada, email="ada@example.org", verified=True, primary=True)
    mine = judged(project, by=ada)
    Judgment.objects.filter(pk=mine.judgment.pk).update(reason="my own words")
    theirs = judged(project, by=ben, comparison=mine.comparison)
    Judgment.objects.filter(pk=theirs.judgment.pk).update(reason="words of ben")
    create_token(ada, name="notebook", days=1)
    add_app(ada)
    Event.record(project, grace, "paused", "ada", who="ada", texts=["ada@example.org", "adamant"])
    return ada


def unpacked(data):
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        return {name: packed.read(name).decode() for name in packed.namelist()}


def test_the_export_has_every_kind_of_row_and_no_secret(known_ada, client, ben):
    sign_in_with_password(client, known_ada)
    answer = client.get("/account/data/download/")
    files = unpacked(b"".join(answer.streaming_content))
    assert set(files) == {f"{name}.jsonl" for name in personal_data.FIELDS} | {
        "account.jsonl",
        "README.txt",
    }
    (judgment,) = map(json.loads, files["judgments.jsonl"].splitlines())
    assert judgment["reason"] == "my own words"
    assert json.loads(files["account.jsonl"])["email"] == "ada@example.org"
    assert json.loads(files["tokens.jsonl"])["name"] == "notebook"
    everything = "".join(files.values())
    for secret in ("words of ben", "digest", "JBSWY3DPEHPK3PXP", known_ada.password):
        assert secret not in everything
    assert known_ada.notices.filter(kind="export").exists()


def test_without_the_password_given_again_nothing_is_downloaded(known_ada, client):
    client.force_login(known_ada)
    answer = client.get("/account/data/download/")
    assert answer["Location"].startswith("/accounts/reauthenticate/")
    assert client.post("/account/data/erasure/").status_code == 302
    assert not ErasureRequest.objects.exists()


def test_an_erased_person_is_nowhere_and_their_judgments_stay(project, known_ada, grace, ben):
    snapshot = freeze_snapshot(project, by=None)
    rotate_pseudonyms(project)  # its rows are known all the same
    before = annotator_id(project, known_ada)
    Client().post("/accounts/login/", {"login": "ada", "password": PASSWORD})
    pk, n = known_ada.pk, Judgment.objects.count()
    request = erase(known_ada, grace, "she asked")
    assert request.report["snapshots"] == [str(snapshot)]
    assert request.report["judgments_kept"] == 1
    assert (request.state, request.decided_by, request.reason) == ("done", grace, "she asked")
    user = User.objects.get(pk=pk)
    assert user.username == f"erased-{user.tombstone}"
    assert not user.is_active
    assert not user.has_usable_password()
    assert Judgment.objects.count() == n
    assert not UserSession.objects.filter(user=user).exists()
    for rows in (user.memberships, user.notices, user.authenticator_set, user.emailaddress_set):
        assert not rows.exists()
    # A new version names her otherwise; Ben's name in it is the same.
    names = {row["annotator"] for row in preference_rows(project)}
    assert annotator_id(project, user) in names
    assert before not in names
    assert annotator_id(project, ben) in names
    said = json.dumps(list(Event.objects.values_list("target", "data")), default=str)
    assert "ada@example.org" not in said
    assert "Lovelace" not in said
    assert '"ada"' not in said
    assert "adamant" in said  # only whole words
    assert not Invitation.objects.filter(who="ada@example.org").exists()
    with pytest.raises(PersonalDataError, match="already"):
        erase(user, grace, "again")


def test_a_snapshot_without_their_judgments_is_not_on_the_list(project, known_ada, ben):
    other = UserFactory(username="new")
    freeze_snapshot(project, by=None)
    assert personal_data.snapshots_with(other) == []


def test_asking_withdrawing_and_the_decision(project, known_ada, client):
    root = UserFactory(username="root", is_superuser=True, is_staff=True)
    sign_in_with_password(client, known_ada)
    client.post("/account/data/erasure/")
    client.post("/account/data/erasure/")
    assert ErasureRequest.objects.count() == 1  # asking twice is asking once
    client.post("/account/data/")
    assert ErasureRequest.objects.get().state == "withdrawn"
    client.post("/account/data/erasure/")
    admin = Client()
    sign_in_with_password(admin, root)
    page = admin.get("/erasures/").content.decode()
    assert "Erase ada" in page
    asked = ErasureRequest.objects.get(state="asked")
    admin.post("/erasures/", {"request": asked.pk, "act": "erase", "reason": ""})
    assert not User.objects.get(pk=known_ada.pk).tombstone
    admin.post("/erasures/", {"request": asked.pk, "act": "refuse", "reason": "<b>a law</b>"})
    assert "&lt;b&gt;a law&lt;/b&gt;" in client.get("/account/data/").content.decode()
    client.post("/account/data/erasure/")
    asked = ErasureRequest.objects.get(state="asked")
    admin.post("/erasures/", {"request": asked.pk, "act": "erase", "reason": "she asked"})
    assert User.objects.get(pk=known_ada.pk).tombstone
    assert client.get("/account/data/").status_code == 302  # signed out
    assert (
        f"erased-{User.objects.get(pk=known_ada.pk).tombstone}"
        in admin.get("/erasures/").content.decode()
    )


@pytest.mark.parametrize("who", ["ada", "rita", "grace", "otto"])
def test_nobody_but_a_superuser_sees_or_decides_requests(who, ada, rita, grace, otto, client):
    person = {"ada": ada, "rita": rita, "grace": grace, "otto": otto}[who]
    sign_in_with_password(client, person)
    assert client.get("/erasures/").status_code == 404
    asked = personal_data.ask_for_erasure(ada)
    sent = {"request": asked.pk, "act": "erase", "reason": "x"}
    assert client.post("/erasures/", sent).status_code == 404
    assert not User.objects.get(pk=ada.pk).tombstone


def test_the_only_admin_and_the_only_superuser_stay_until_somebody_follows(project, grace):
    with pytest.raises(PersonalDataError, match="only admin"):
        erase(grace, None, "x")
    assert User.objects.get(pk=grace.pk).is_active
    root = UserFactory(is_superuser=True)
    with pytest.raises(PersonalDataError, match="only superuser"):
        erase(root, None, "x")


def test_the_command(project, known_ada, tmp_path, capsys):
    call_command("person", "export", "ada", str(tmp_path / "ada.zip"))
    assert "judgments.jsonl" in unpacked((tmp_path / "ada.zip").read_bytes())
    with pytest.raises(CommandError, match="--reason"):
        call_command("person", "erase", "ada")
    User.objects.filter(pk=known_ada.pk).update(date_joined="2020-01-01T00:00:00Z", last_login=None)
    call_command("person", "inactive", "--days", "700")
    assert "ada\tlast sign-in never" in capsys.readouterr().out
    call_command("person", "inactive", "--days", "700", "--erase", "--reason", "retention")
    assert "1 judgments stay" in capsys.readouterr().out
    assert User.objects.get(pk=known_ada.pk).tombstone
