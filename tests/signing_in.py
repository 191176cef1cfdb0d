"""People who gave their password a moment ago, as some pages ask for it once more."""

from django.urls import reverse

PASSWORD = "a long enough password"


def sign_in_with_password(client, person):
    """As `force_login`, and with the password given again."""
    client.force_login(person)
    answer = client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    assert answer.status_code == 302, answer.content
