"""A campaign and somebody who answers in it, for tests of dialogues that are not about policies."""

import time
from contextlib import contextmanager

from annotation.judge import candidates as seam
from annotation.judge import dialogue_campaigns
from annotation.judge.candidates import CandidateError, Serving, Writer


class Parrots:
    """Two writers, each with a text of its own. `pause`: seconds before each of its words."""

    def __init__(self, texts=("first answer", "second answer"), *, breaks=False, pause=(0, 0)):
        self.texts, self.breaks, self.pause = texts, breaks, pause
        self.state, self.sentence = "ready", ""
        self.heard = []

    def serving(self, campaign):
        return Serving(self.state, self.sentence)

    def writers(self, campaign, n):
        return [
            Writer(f"policy secret-{at}", {"temperature": 0.5 + at, "which": at}) for at in range(n)
        ]

    def write(self, writer, messages, report):
        self.heard.append(messages)
        which = writer.sampling["which"]
        for word in self.texts[which].split(" "):
            time.sleep(self.pause[which])
            yield word + " "
            if self.breaks:
                raise CandidateError("It broke off.")
        report.n_tokens = 7


@contextmanager
def answering(who):
    """`who` answers in dialogues meanwhile."""
    before = seam.candidates()
    seam.register(who)
    try:
        yield who
    finally:
        seam.register(before)


def preferring(better, level, axes=("helpfulness",), **more):
    """An answer in letters: A or B is better by `level` on each axis."""
    other = {"A": "B", "B": "A"}[better]
    return {
        "ranks": {axis: {better: 1, other: 2} for axis in axes},
        "strength": dict.fromkeys(axes, level),
        **more,
    }


def new_campaign(project, by, name="Kitchen talk", **fields):
    given = {"kind": "helpful", "licence": "CC0-1.0", "writing": {"policies": ["secret"]}}
    return dialogue_campaigns.open_campaign(project, name, by=by, **(given | fields))
