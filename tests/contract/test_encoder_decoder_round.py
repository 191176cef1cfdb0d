"""One whole round of a T5, by the real stages: what is launched from the web comes to its end."""

import random

import pytest

from rlhf import rounds, simulation
from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import default_config
from rlhf.stages import STAGES
from rlhf.workers.next_job import run_next_job
from tests.rlhf.machine import WARNINGS, real_transactions
from tests.rlhf.training.tiny import WORDS, make_t5, prompt, run, run_folder

pytestmark = [real_transactions, pytest.mark.slow]


@pytest.fixture
def taught(tmp_path):
    """A T5 that has learned to say a few words and to end."""
    generator = random.Random(0)
    rows = [
        prompt(i) | {"response": " ".join(generator.choices(WORDS, k=generator.randint(2, 6)))}
        for i in range(240)
    ]
    config = {"policy": str(make_t5(tmp_path / "t5")), "epochs": 6, "learning_rate": 1e-2}
    folder = run_folder(tmp_path / "sft", config | {"threads": 1}, demonstrations=rows)
    done = run("sft", folder)
    assert done.returncode == 0, done.stderr
    return str(folder / "policy")


def test_a_t5_is_ranked_modelled_refined_and_measured(taught, db):
    from rlhf import demo
    from tests.factories import UserFactory

    project = demo.demo_project("t5", "T5")
    grace = UserFactory(username="grace", is_superuser=True)
    base = Round.objects.create(project=project, number=0, state="done", plan=["evaluate"])
    policy = Checkpoint.objects.create(
        project=project, kind="policy", name="T5", state="promoted", path=taught, round=base
    )
    Round.objects.filter(pk=base.pk).update(policy=policy)
    simulation.team(project)
    config = default_config(project, "ci")
    config["ppo"] |= {"steps": 2}
    job = rounds.open_round(project, by=grace, config=config, acknowledged=WARNINGS)

    def work(queue):
        job = run_next_job(queue, owner="hal")
        assert job is not None
        assert job.state == Job.State.DONE, (job.stage, job.error)
        return job.stage

    assert work("gpu") == "generate"
    round = Round.objects.get(pk=job.round_id)
    simulation.judge_batch(round.batch)
    rounds.close_annotation(round, grace)
    done = [work("default")]
    while waiting := Job.objects.filter(round=round, state=Job.State.QUEUED).first():
        done.append(work(STAGES[waiting.stage].queue))
    assert {"reward_model", "ppo", "evaluate"} <= set(done)
    round.refresh_from_db()
    assert round.policy is not None
    assert round.policy != policy
