"""What can't be done, each in one sentence for a person."""


class RoundError(Exception):
    """What can't be done with a round now."""


class StageError(Exception):
    """A stage can't be given what it needs, or left nothing of use. Trying again won't help."""
