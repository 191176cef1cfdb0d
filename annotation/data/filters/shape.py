"""What a text looks like: broken encodings, repetition, length, boilerplate, and injected orders."""

import re

from annotation.data.filters.finding import Finding

# UTF-8 that was read as Windows-1252, as "Ã¼" for "ü" and "â€™" for an apostrophe.
MOJIBAKE = re.compile(
    r"(?:Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|â€[œ™˜\u009d“”¢¦]|Â[\u00a0-\u00bf])"
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ufffe\uffff\ud800-\udfff]")
ENTITY = re.compile(
    r"&(?:amp|lt|gt|quot|nbsp|#\d{2,5}|#x[0-9a-f]{2,5});|</?(?:div|span|br|p|a|td)\b[^>]{0,200}>",
    re.I,
)
HIDDEN = re.compile(
    "[\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\U000e0000-\U000e007f]"
)
WORD = re.compile(r"\w+")

REFUSAL = re.compile(
    r"\bas an? (?:AI|artificial intelligence|language model|AI language model|large language model)\b"
    r"|\bas an? (?:helpful )?(?:AI )?(?:assistant|chatbot)[, ]+I (?:can|do|am|must|don)"
    r"|\bI(?:'m| am) (?:just |only )?an? (?:AI|language model|artificial intelligence)\b"
    r"|\bmy (?:knowledge cut-?off|training data|programming)\b"
    r"|\bI (?:can(?:'t|not)|am (?:not able|unable)|'m (?:not able|unable)|won't|will not) "
    r"(?:to )?(?:help|assist|provide|comply|do that|answer|ful[f]ill?|engage|support|write|create|give)\b"
    r"|\bI(?:'m| am) (?:very |really |so )?sorry,? but I\b|\bI must (?:decline|refuse)\b"
    r"|\bis (?:illegal|unethical|inappropriate|harmful) (?:and|,) (?:I|we)\b"
    r"|\bals (?:KI|künstliche Intelligenz|Sprachmodell|KI-Modell)\b"
    r"|\b(?:ich kann|leider kann ich)[^.!?]{0,30}\bnicht (?:helfen|weiterhelfen|beantworten)\b",
    re.I,
)
BOILERPLATE = re.compile(
    r"\bI hope this helps\b|\bfeel free to (?:ask|reach out)\b|\blet me know if you (?:have|need)\b"
    r"|\bis there anything else I can (?:help|assist)\b|\bgreat question\b"
    r"|\b(?:sure|certainly|of course|absolutely)[!,.] (?:here|I)\b|\bin conclusion,|\bit is important to note that\b"
    r"|\bplease consult (?:a|an|with|your) (?:\w+ ){0,3}(?:professional|doctor|lawyer)\b",
    re.I,
)
INJECTION = (
    (
        0.9,
        "an order to ignore earlier instructions",
        re.compile(
            r"\b(?:ignore|disregard|forget|override|bypass|vergiss|ignorier\w*)\b[^.!?\n]{0,40}"
            r"\b(?:previous|prior|above|earlier|all|any|your|vorherigen|bisherigen|alle)\b[^.!?\n]{0,30}"
            r"\b(?:instruction|prompt|rule|direction|guideline|command|anweisung|regel)\w*",
            re.I,
        ),
    ),
    (
        0.9,
        "a marker of a chat template",
        re.compile(
            r"<\|[a-z_]{2,30}\|>|\[/?INST\]|<</?SYS>>|</?s>\s*\[|<(?:start|end)_of_turn>"
            r"|^\s*#{2,3} (?:Instruction|System|Assistant|Response):",
            re.I | re.M,
        ),
    ),
    (
        0.8,
        "a request for the hidden instructions",
        re.compile(
            r"\b(?:reveal|show|print|repeat|output|tell me|what (?:is|are|were))\b[^.!?\n]{0,30}"
            r"\b(?:system prompt|system message|initial prompt|hidden (?:prompt|instruction)s?"
            r"|(?:your|the) (?:initial |original |exact )?(?:instructions|prompt) (?:above|verbatim|word for word))",
            re.I,
        ),
    ),
    (
        0.8,
        "a change of role that lifts the rules",
        re.compile(
            r"\byou are (?:now|no longer)\b[^.!?\n]{0,60}\b(?:DAN|jailbroken|unrestricted|unfiltered|without (?:any )?(?:rules|restrictions|filters))"
            r"|\b(?:developer|debug|god|sudo) mode\b[^.!?\n]{0,20}\b(?:on|enabled|activated|engaged)?"
            r"|\bdo anything now\b|\bjailbreak\b|\b(?:no|without) (?:ethical|moral|content) (?:guidelines|restrictions|filters|limits)\b",
            re.I,
        ),
    ),
    (
        0.6,
        "a turn of another speaker inside the text",
        re.compile(r"^\s*(?:system|assistant|human|user)\s*:", re.I | re.M),
    ),
)


def refusals(text: str) -> list[Finding]:
    """Refusals and statements about being a model: "As an AI …", "I can't help with …"."""
    return [
        Finding(0.9, "a refusal or a statement about being a model", *match.span())
        for match in REFUSAL.finditer(text)
    ]


def boilerplate(text: str) -> list[Finding]:
    """Phrases that models add to any answer; the more of them in few words, the higher the score."""
    matches = list(BOILERPLATE.finditer(text))
    score = min(1.0, 0.4 + 0.2 * (len(matches) - 1))
    return [Finding(score, "a stock phrase of models", *match.span()) for match in matches]


def injection(text: str) -> list[Finding]:
    """Text that gives orders to a model that reads it as data, and markers of chat templates."""
    findings = [
        Finding(score, reason, *match.span())
        for score, reason, pattern in INJECTION
        for match in pattern.finditer(text)
    ]
    if match := HIDDEN.search(text):
        hidden = len(HIDDEN.findall(text))
        if any(0xE0000 <= ord(c) <= 0xE007F for c in text) or hidden >= 3:
            findings.append(Finding(0.7, "invisible characters", *match.span()))
    return findings


def broken(text: str) -> list[Finding]:
    """Wrong encodings, control characters, HTML left over, and text that repeats itself."""
    findings = []
    n = max(1, len(text))
    if match := CONTROL.search(text):
        findings.append(Finding(0.9, "control or replacement characters", *match.span()))
    if marks := list(MOJIBAKE.finditer(text)):
        score = min(1.0, 0.6 + 0.1 * len(marks))
        findings.append(Finding(score, "UTF-8 that was read in another encoding", *marks[0].span()))
    if entities := list(ENTITY.finditer(text)):
        share = sum(len(match[0]) for match in entities) / n
        score = min(0.9, 0.3 + 2 * share)
        findings.append(Finding(score, "HTML that was left over", *entities[0].span()))
    repeated = _repeated_share(text)
    if repeated > 0.5:
        findings.append(Finding(repeated, "mostly the same words again", 0, len(text)))
    symbols = sum(1 for c in text if not c.isalnum() and not c.isspace()) / n
    if n >= 20 and symbols > 0.5:
        findings.append(Finding(min(1.0, symbols), "mostly signs instead of words", 0, len(text)))
    if not text.strip():
        findings.append(Finding(1.0, "no text", 0, len(text)))
    return findings


def _repeated_share(text: str) -> float:
    """Share of words in groups of three that come a third time or more; 0 for short texts."""
    words = WORD.findall(text.lower())
    if len(words) < 20:
        return 0.0
    counts: dict[tuple[str, str, str], int] = {}
    groups = list(zip(words, words[1:], words[2:], strict=False))
    for group in groups:
        counts[group] = counts.get(group, 0) + 1
    return sum(n for n in counts.values() if n >= 3) / len(groups)


def length(text: str) -> list[Finding]:
    """The number of words: every text has this finding, and the threshold is where "long" begins."""
    n = len(WORD.findall(text))
    return [Finding(float(n), f"{n} words", 0, len(text))] if n else []
