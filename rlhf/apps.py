from django.apps import AppConfig


class RlhfConfig(AppConfig):
    name = "rlhf"
    verbose_name = "Rounds of training"

    def ready(self) -> None:
        """Live dialogues get their answers from the policies that this app serves."""
        from annotation.judge.candidates import register
        from rlhf.serving.candidates import PolicyCandidates

        register(PolicyCandidates())
