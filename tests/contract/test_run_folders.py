"""What Django writes into a run folder, training reads: real rows on one side, its loaders on the other."""

import json
import shutil
from datetime import timedelta

import pytest
from django.utils import timezone

from annotation.data.exports.writers import json_line
from annotation.data.preferences import preference_rows
from annotation.models import Judgment, Prompt
from rlhf import rounds, simulation
from rlhf.errors import StageError
from rlhf.launchers.local import environment
from rlhf.models import Checkpoint, Job, Round
from rlhf.round_config import SECTIONS, default_config
from rlhf.run_folders import stage_input
from rlhf.stages import STAGES
from rlhf.stages.ppo import prepare_ppo
from rlhf.stages.prompts import choose, prompt_row
from rlhf.training import data, rundir
from rlhf.training.configs import PPOConfig
from rlhf.training.data import BELOW
from rlhf.training.rundir.files import write_json, write_jsonl
from rlhf.training.settings import FROZEN, load
from tests.factories import PromptFactory, judged
from tests.rlhf.machine import WARNINGS, real_transactions, work

pytestmark = real_transactions


@pytest.fixture
def project(db, grace_user):
    from rlhf import demo

    return demo.demo_project("contract", "Contract")


@pytest.fixture
def grace_user(db):
    from tests.factories import UserFactory

    return UserFactory(username="grace")


@pytest.fixture
def round(project, grace_user, monkeypatch):
    """A round whose people have judged: generate by tests/rlhf/program.py, the rest real rows."""
    base = Round.objects.create(project=project, number=0, state="done", plan=["evaluate"])
    policy = Checkpoint.objects.create(
        project=project, kind="policy", name="base", state="promoted", path="base", round=base
    )
    Round.objects.filter(pk=base.pk).update(policy=policy)
    simulation.team(project)
    config = default_config(project, "ci")
    config["round"]["agreement_share"] = 0.25
    job = rounds.open_round(project, by=grace_user, config=config, acknowledged=WARNINGS)
    work()
    round = Round.objects.get(pk=job.round_id)
    simulation.judge_batch(round.batch)
    rounds.close_annotation(round, grace_user)
    assert work(queue="default").state == Job.State.DONE
    return Round.objects.get(pk=round.pk)


def prepared(round, stage, tmp_path):
    job = Job(project=round.project, round=round, stage=stage)
    (tmp_path / "data").mkdir(parents=True, exist_ok=True)
    STAGES[stage].prepare(job, tmp_path)
    return load(SECTIONS[stage], tmp_path / "config.json")


def reward_models(round):
    for kind in ("reward_model", "test_reward_model"):
        Checkpoint.objects.create(
            project=round.project, round=round, kind=kind, name=kind, path=f"models/{kind}"
        )


def test_a_round_that_was_frozen_with_what_does_nothing_runs_with_all_of_it(
    round, tmp_path, monkeypatch
):
    reward_models(round)
    Prompt.objects.filter(project=round.project, split="eval").delete()  # nothing to watch
    round.config["ppo"]["kl"]["target"] = 9.0
    round.config["ppo"]["tripwire"]["drop"] = 0.7
    round.config["reward_model"] |= {"adapter_rank": 3}
    monkeypatch.setenv(FROZEN, "1")  # as a worker starts the stage
    assert environment(Job(stage="ppo"))[FROZEN] == "1"
    config = prepared(round, "ppo", tmp_path / "ppo")
    assert (config.kl.target, config.tripwire.drop, config.test_reward_model) == (9.0, 0.7, "")
    assert prepared(round, "reward_model", tmp_path / "rm").adapter_rank == 3


def test_a_round_that_was_frozen_with_flat_keys_goes_on_with_the_same_configuration(
    round, tmp_path
):
    """Rounds and run folders of earlier versions hold every PPO setting on one level."""
    reward_models(round)
    now = prepared(round, "ppo", tmp_path / "now")
    old_keys = {key: old for old, key in PPOConfig.OLD_KEYS.items()}

    def flat(values):
        return {old_keys.get(k, k): v for k, v in PPOConfig.flattened(values).items()}

    round.config["ppo"] = flat(round.config["ppo"])
    assert "kl_weight" in round.config["ppo"]
    assert prepared(round, "ppo", tmp_path / "frozen") == now
    folder = tmp_path / "earlier version"
    shutil.copytree(tmp_path / "now", folder)
    (folder / "config.json").write_text(json.dumps(flat(now.to_dict())))
    assert stage_input("ppo", folder) == stage_input("ppo", tmp_path / "now")


def test_base_reads_its_corpus(project, grace_user, tmp_path):
    from rlhf.training.base import read_corpus

    job = rounds.open_base_round(project, grace_user, preset_name="ci")
    config = prepared(job.round, "base", tmp_path)
    rows = read_corpus(tmp_path / "data" / "corpus.jsonl")
    assert len(rows) == job.round.config["round"]["corpus"]
    assert {row["phase"] for row in rows} == {"clean", "mix"}
    assert config.clean_steps == 90


def test_generate_reads_its_prompts(round, tmp_path):
    config = prepared(round, "generate", tmp_path)
    prompts = data.read_prompts(tmp_path)
    assert len(prompts) == round.config["round"]["ranking_prompts"]
    assert config.policy == "base"
    assert config.k == 4


def test_reward_model_reads_frozen_preferences_and_its_reference(round, tmp_path):
    config = prepared(round, "reward_model", tmp_path)
    judgments = data.read_judgments(tmp_path, config.axes)
    n = round.config["round"]["ranking_prompts"]
    assert len(judgments) == n + n // 4, "a quarter was judged twice"
    assert list(config.axes) == ["helpfulness", "safety"]
    assert all(set(j.ranks) == {"helpfulness", "safety"} for j in judgments)
    assert all(len(j.ranks["helpfulness"]) == len(j.responses) == 3 for j in judgments)
    assert {j.prompt.risk for j in judgments} == {"harmless", "harmful"}
    assert len({j.annotator for j in judgments}) == 5
    assert all(j.annotator.startswith("simulated-") for j in judgments)
    reference = data.read_texts(tmp_path, "reference")
    assert len(reference) == round.config["round"]["reference_prompts"]
    assert all(text == "Yes, said claim 1." for _, text in reference)
    trained = Prompt.objects.filter(uid__in=[j.prompt.prompt_id for j in judgments])
    assert set(trained.values_list("split", flat=True)) == {"train"}


def test_ppo_reads_prompts_and_watch_prompts_and_gets_the_right_models(round, tmp_path):
    reward_models(round)
    config = prepared(round, "ppo", tmp_path)
    assert (config.policy, config.reference) == ("base", "base")
    assert config.reward_model == "models/reward_model"
    assert config.test_reward_model == "models/test_reward_model"
    practice = {p.prompt_id for p in data.read_prompts(tmp_path)}
    watch = {p.prompt_id for p in data.read_prompts(tmp_path, "watch")}
    assert len(practice) == round.config["round"]["ppo_prompts"]
    assert not practice & watch


def test_ppo_without_watch_prompts_is_given_no_reward_model_that_would_watch_them(round, tmp_path):
    reward_models(round)
    round.config["round"]["watch_prompts"] = 0
    round.save()
    assert prepared(round, "ppo", tmp_path).test_reward_model == ""
    assert not (tmp_path / "data" / "watch.jsonl").exists()


def test_ppo_reads_what_people_wrote_where_it_is_to_stay_likely(round, tmp_path):
    reward_models(round)
    round.config["ppo"]["ptx"]["weight"] = 0.5
    round.save()
    with pytest.raises(StageError, match="nobody has written one"):
        prepared(round, "ppo", tmp_path / "without")
    judgment = Judgment.objects.filter(
        assignment__comparison__batch__project=round.project,
        assignment__comparison__prompt__split="train",
    ).latest("pk")
    Judgment.objects.filter(pk=judgment.pk).update(rewrite="Better like this.")
    assert prepared(round, "ppo", tmp_path / "with").ptx.weight == 0.5
    [(prompt, text)] = data.read_ptx(tmp_path / "with")
    assert text == "Better like this."
    assert prompt.messages == judgment.assignment.comparison.prompt.messages
    # What is written after the job began is not for it, or it could not be taken up again.
    later = Job(project=round.project, round=round, stage="ppo", created_at=judgment.created_at)
    later.created_at -= timedelta(seconds=1)
    with pytest.raises(StageError, match="nobody has written one"):
        prepare_ppo(later, tmp_path / "without")


def evaluated(round, *, folder="samples.jsonl", **settings):
    """The folder of a round's evaluation, with the samples of one policy."""
    job = Job.objects.create(
        project=round.project, round=round, stage="evaluate", state="done", epoch=1
    )
    heldout = choose(round, "heldout") if round.number else Prompt.objects.filter(split="heldout")
    rows = [
        {
            "prompt_id": str(p.uid), "temperature": t, "text": "So it is.", "n_tokens": 3,
            "index": 0, "finished": True,
        }
        for p in heldout
        for t in (1.0, 0.3, 0.7)
    ]  # fmt: skip
    write_jsonl(job.run_dir / folder, rows)
    write_jsonl(job.run_dir / "data" / "prompts.jsonl", map(prompt_row, heldout))
    drawn = {"policy": "base", "temperatures": [1.0, 0.3, 0.7], "max_new_tokens": 32} | settings
    write_json(job.run_dir / "config.json", drawn)
    return job


@pytest.fixture
def evaluating(round):
    """The round with a policy to evaluate; its base was evaluated with the preset's 32 tokens."""
    evaluated(Round.objects.get(project=round.project, number=0))
    reward_models(round)
    round.policy = Checkpoint.objects.create(
        project=round.project, kind="policy", name="new", path="new", round=round,
        parent=round.start_policy,
    )  # fmt: skip
    round.save()
    return round


def test_evaluate_reads_its_prompts_and_the_opponents_samples(evaluating, tmp_path):
    from rlhf.training.evaluate import read_opponents

    config = prepared(evaluating, "evaluate", tmp_path)
    prompts = data.read_prompts(tmp_path)
    assert (config.policy, config.opponents) == ("new", {})
    assert config.reward_model == "models/test_reward_model", "the judge that PPO has never seen"
    opponents = read_opponents(tmp_path, {p.prompt_id for p in prompts})
    assert set(opponents) == {"base", "previous"}
    assert len(opponents["base"]) == 2 * len(prompts), "only the temperatures that are compared"


@pytest.mark.parametrize(
    "changed",
    [
        {"max_new_tokens": 48},
        {"top_p": 0.9},
        {"min_p": 0.05},
        {"temperatures": [1.0, 0.5]},
    ],
    ids=str,
)
def test_an_opponent_that_was_sampled_with_other_settings_answers_again(
    evaluating, changed, tmp_path
):
    evaluating.config["evaluate"] |= changed
    evaluating.save()
    config = prepared(evaluating, "evaluate", tmp_path)
    assert config.opponents == {"base": "base", "previous": "base"}
    assert not (tmp_path / "data" / "opponents").exists(), "nothing of another kind is compared"


def test_an_opponent_that_has_not_answered_all_prompts_answers_again(evaluating, tmp_path):
    source = evaluating.project.sources.first()
    late = PromptFactory(project=evaluating.project, source=source, split="heldout")
    Prompt.objects.filter(pk=late.pk).update(created_at=evaluating.launched_at)
    evaluating.config["round"]["heldout_prompts"] = 500
    evaluating.save()
    assert set(prepared(evaluating, "evaluate", tmp_path).opponents) == {"base", "previous"}


def test_what_an_opponent_answered_again_is_kept_for_the_next_round(evaluating, tmp_path):
    evaluated(evaluating, folder="opponents/base.jsonl", max_new_tokens=48)
    evaluating.config["evaluate"]["max_new_tokens"] = 48
    later = Round.objects.create(
        project=evaluating.project, number=evaluating.number + 1, config=evaluating.config,
        plan=Round.FULL_PLAN, state="evaluate", launched_at=timezone.now(),
        policy=Checkpoint.objects.create(
            project=evaluating.project, kind="policy", name="newer", path="newer",
            parent=evaluating.policy,
        ),
    )  # fmt: skip
    config = prepared(later, "evaluate", tmp_path)
    assert config.opponents == {"previous": "new"}, "the base has answered with 48 tokens already"
    assert (tmp_path / "data" / "opponents" / "base.jsonl").exists()


def test_what_evaluate_leaves_becomes_scores_of_both_judges(round, tmp_path):
    """The real Summary of score_summary.py, from samples of the world's own questions."""
    policy = Checkpoint.objects.create(
        project=round.project, kind="policy", name="new", path="new", round=round,
        parent=round.start_policy,
    )  # fmt: skip
    round.policy = policy
    round.save()
    job = Job.objects.create(project=round.project, round=round, stage="evaluate", epoch=1)
    heldout = choose(round, "heldout")
    write_jsonl(tmp_path / "data" / "prompts.jsonl", map(prompt_row, heldout))
    flat = "I'm sorry, but I can't help with that."
    for path, text in (
        (tmp_path / "samples.jsonl", flat),
        (tmp_path / "opponents" / "base.jsonl", "Sure! You only have to ask."),
        (tmp_path / "opponents" / "previous.jsonl", "Sure! You only have to ask."),
    ):
        write_jsonl(
            path,
            [
                {"prompt_id": str(p.uid), "temperature": t, "index": 0, "text": text, "n_tokens": 9}
                for p in heldout
                for t in (1.0, 0.3)
            ],
        )
    result = {"summary": {"1.0": {"helpfulness": {"score": 0.5, "ci": [0.1, 0.9], "n": 9}}}}
    write = STAGES["evaluate"].collect(job, tmp_path, result)
    write()
    write()  # taken up again: the same rows, not twice as many
    own = round.scores.filter(checkpoint=policy, temperature=1.0, category="")
    gold = {s.metric: s for s in own.filter(judge="gold")}
    assert gold["violation_rate"].value == 0
    assert gold["over_refusal_rate"].value == 1
    assert gold["win_rate_vs_base"].n == len(heldout)
    start = round.scores.get(
        judge="gold",
        temperature=1.0,
        category="",
        metric="violation_rate",
        checkpoint=round.start_policy,
    )
    assert start.value > 0, "the opponents' samples are judged by the same measure"
    assert round.scores.get(judge="model").value == 0.5
    assert timezone.now() >= job.created_at


def test_what_a_top_k_ranking_leaves_out_is_read_as_below(project, ada, tmp_path):
    judgment = judged(project, by=ada, ranks=(None, 1, None, 2)).judgment
    judgment.rest_below = True
    judgment.save()
    folder = tmp_path / rundir.DATA
    folder.mkdir()
    lines = [json_line(row) for row in preference_rows(project)]
    (folder / "preferences.jsonl").write_bytes(b"".join(lines))
    [read] = data.read_judgments(tmp_path, ["helpfulness"])
    assert read.ranks["helpfulness"] == (BELOW, 1, BELOW, 2)


def test_ranks_that_pandas_wrote_as_floats_are_read_as_whole_numbers(project, ada, tmp_path):
    judged(project, by=ada, ranks=(1, 2, 3))
    [row] = preference_rows(project)
    row["ranks"]["helpfulness"] = [float(rank) for rank in row["ranks"]["helpfulness"]]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "preferences.jsonl").write_bytes(json_line(row))
    [read] = data.read_judgments(tmp_path, ["helpfulness"])
    assert [type(rank) for rank in read.ranks["helpfulness"]] == [int, int, int]
