"""Personal data by form and checksum: found, masked, and never in a reason."""

import socket

import pytest

from annotation.data.filters.personal_data import masked, personal_data

PLANTED = {
    "Write to maria.lopez@mailbox.org please.": "maria.lopez@mailbox.org",
    "Call me at +49 30 901820.": "+49 30 901820",
    "My phone: (212) 736-5000": "(212) 736-5000",
    "Card 4111 1111 1111 1111, exp 12/29.": "4111 1111 1111 1111",
    "Transfer it to DE89 3704 0044 0532 0130 00 today.": "DE89 3704 0044 0532 0130 00",
    "The server at 85.214.132.117 is down.": "85.214.132.117",
    "my password is Tr0ub4dor&3x": "Tr0ub4dor&3x",
    "-----BEGIN RSA PRIVATE KEY-----": "-----BEGIN RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize(("text", "planted"), PLANTED.items())
def test_planted_data_is_found_and_masked(text, planted):
    (finding,) = personal_data(text)
    assert text[finding.start : finding.end] == planted
    assert finding.score >= 0.6
    assert planted not in finding.reason
    assert planted not in masked(text)
    assert masked(text) == text.replace(planted, f"[{finding.reason.partition(' ')[2]}]")


@pytest.mark.parametrize(
    "text",
    [
        "Order 4111 1111 1111 1112 was shipped.",
        "IBAN DE88 3704 0044 0532 0130 00 has a wrong check number.",
        "Version 10.4.2.1000, ISBN 978-3-16-148410-0, 1,234,567,890 views, 2026-11-30 at 13:30.",
        "Follow @groundcontrol for news, or write to me@example.com.",
        "localhost is 127.0.0.1",
        "",
    ],
)
def test_a_number_without_its_check_is_not(text):
    assert [f for f in personal_data(text) if f.score >= 0.6] == []


def test_overlapping_kinds_give_one_finding_and_one_mask():
    assert masked("mail a@b.org and a@b.org") == "mail [mail address] and [mail address]"


def test_nothing_asks_the_network(monkeypatch):
    def refuse(*args):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert len([personal_data(text) for text in PLANTED]) == len(PLANTED)


def test_a_long_run_of_digits_and_dots_ends_in_time():
    personal_data("1." * 20_000 + " a" * 5_000 + "@" * 5_000 + "call +" + "1 " * 5_000)
