"""Personal data and secrets that can be recognized by their form: no model, no download.

Numbers count only with their check: cards by Luhn (ISO/IEC 7812), IBANs by ISO 13616 (python-stdnum),
phone numbers by the numbering plan of their country (phonenumbers). A reason names the kind and
never the text.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator

import phonenumbers
from stdnum import iban, luhn

from annotation.data.filters.finding import Finding

Spans = Iterator[tuple[float, int, int]]

MAIL = re.compile(
    r"[A-Z0-9](?:[A-Z0-9._%+-]{0,62}[A-Z0-9_+-])?@(?:[A-Z0-9-]{1,63}\.){1,8}[A-Z]{2,24}\b", re.I
)
# Domains that are set aside for examples (RFC 2606) belong to nobody.
EXAMPLE_DOMAIN = re.compile(
    r"(?:^|[.@])example(?:\.(?:com|net|org|edu))?$|\.(?:test|invalid)$", re.I
)
CARD = re.compile(r"(?<![\w.])(?:\d[ -]?){12,18}\d(?![\w])")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}\b")
IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{1,4}(?![\w:])", re.I)
PHONE_HINT = re.compile(r"(?:\+|\b00|\(\d|\b0|\b)\d[\d ()/.\-]{5,18}\d")
SPOKEN_OF = re.compile(
    r"\b(?:phone|call|tel|mobile|cell|fax|whatsapp|telefon|handy|ruf|text me)", re.I
)
# Prefixes that their issuers publish so that leaked keys can be recognized.
KEYS = re.compile(
    r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{22,}\b|\bglpat-[\w-]{20,}\b"
    r"|\bhf_[A-Za-z0-9]{30,}\b|\bsk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}\b|\bxox[abprs]-[\w-]{10,}\b"
    r"|\bAIza[0-9A-Za-z_-]{35}\b|\b[sr]k_(?:live|test)_[0-9A-Za-z]{16,}\b"
    r"|-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"
    r"|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"
)
PASSWORD = re.compile(
    r"\b(?:password|passwd|passwort|api[_ -]?key|secret|token)\b\s*(?:is|ist|[:=])\s*[\"']?"
    r"(?P<secret>(?=[^\s\"']*\d)[^\s\"']{8,})",
    re.I,
)
# Where a phone number is written without its country, these plans are tried.
REGIONS = ("US", "GB", "DE")


def _mails(text: str) -> Spans:
    if "@" not in text:
        return
    for match in MAIL.finditer(text):
        domain = match[0].rpartition("@")[2]
        yield (0.3 if EXAMPLE_DOMAIN.search(domain) else 1.0), match.start(), match.end()


def _cards(text: str) -> Spans:
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        # 2 to 6 are the first digits of the payment networks; equal digits pass Luhn as well.
        if digits[0] in "23456" and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield 1.0, match.start(), match.end()


def _ibans(text: str) -> Spans:
    for match in IBAN.finditer(text):
        # The last groups may be words that follow the number.
        candidate = match[0]
        while len(candidate) >= 15:
            if iban.is_valid(candidate, check_country=False):
                yield 1.0, match.start(), match.start() + len(candidate)
                break
            shorter = candidate.rpartition(" ")[0]
            candidate = shorter if shorter else ""


def _addresses(text: str) -> Spans:
    for pattern in (IPV4, IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if not address.is_unspecified:
                yield (0.9 if address.is_global else 0.3), match.start(), match.end()


def _phones(text: str) -> Spans:
    if not PHONE_HINT.search(text):
        return
    spans: list[tuple[int, int]] = []
    is_spoken_of = SPOKEN_OF.search(text) is not None
    for region in (None, *REGIONS):
        if region and not is_spoken_of:
            break
        matcher = phonenumbers.PhoneNumberMatcher(
            text, region, leniency=phonenumbers.Leniency.VALID, max_tries=200
        )
        for match in matcher:
            if any(match.start < end and start < match.end for start, end in spans):
                continue
            spans.append((match.start, match.end))
            yield (0.9 if region is None else 0.7), match.start, match.end


def _keys(text: str) -> Spans:
    for match in KEYS.finditer(text):
        yield 1.0, match.start(), match.end()


def _passwords(text: str) -> Spans:
    for match in PASSWORD.finditer(text):
        yield 0.8, *match.span("secret")


KINDS: dict[str, Callable[[str], Spans]] = {
    "a key or token": _keys,
    "a password": _passwords,
    "a mail address": _mails,
    "an IBAN with a correct check number": _ibans,
    "a payment card number with a correct check digit": _cards,
    "an IP address": _addresses,
    "a phone number": _phones,
}
HAS_HINT = re.compile(r"[@\d]|PRIVATE KEY")


def personal_data(text: str) -> list[Finding]:
    """Every mail address, phone, card, IBAN, IP address, key and password, in the order of the text.

    Where two kinds overlap, the kind that comes first in `KINDS` has the place.
    """
    if not HAS_HINT.search(text):
        return []
    findings: list[Finding] = []
    for reason, spans in KINDS.items():
        for score, start, end in spans(text):
            if not any(start < other.end and other.start < end for other in findings):
                findings.append(Finding(score, reason, start, end))
    return sorted(findings, key=lambda finding: finding.start)


def masked(text: str, findings: list[Finding] | None = None) -> str:
    """The text with every finding replaced by its kind in brackets."""
    parts, end = [], 0
    for finding in personal_data(text) if findings is None else findings:
        if finding.start < end:
            continue
        parts += [text[end : finding.start], f"[{finding.reason.partition(' ')[2]}]"]
        end = finding.end
    return "".join([*parts, text[end:]])
