"""The form with which a waiting round's reward models are trained again with other settings."""

from typing import Any

from django import forms

from rlhf.models import Round
from rlhf.pages.launch_form import explained, field_of
from rlhf.rounds import RETRAINED


class RetrainForm(forms.Form):
    """The settings of `rounds.RETRAINED`, as the round was trained with."""

    note = forms.CharField(required=False, max_length=2000)

    def __init__(self, data: Any = None, *, round: Round) -> None:
        super().__init__(data, auto_id="retrain-%s")
        values = round.config.get("reward_model", {})
        for name in RETRAINED:
            self.fields[name] = field_of("reward_model", name, values.get(name))
            self.fields[name].help_text = explained()["reward_model"][name]

    @property
    def settings(self) -> list[forms.BoundField]:
        return [self[name] for name in RETRAINED]
