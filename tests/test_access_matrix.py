"""Every address × every role × a foreign project.

The table below says who may open what. An address that is not in it fails the test, so nobody can
add a page and forget to decide. Whoever may not see a thing is told that it does not exist (404);
a stranger is asked to sign in.
"""

import re

import pytest
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from annotation.access import (
    ANY_ROLE,
    CAN_EXPORT,
    CAN_JUDGE,
    CAN_READ_DATA,
    CAN_REVIEW,
    CAN_RUN,
)
from annotation.data.snapshots import freeze_snapshot
from rlhf.models import Checkpoint, Job, Round
from tests.annotation.talking import new_campaign
from tests.factories import judged, member

pytestmark = pytest.mark.django_db

# name: (method, roles that may). Pages of one project; `slug` is in the address.
PAGES = {
    "project": ("get", ANY_ROLE),
    "project_settings": ("get", CAN_RUN),
    "people": ("get", CAN_RUN),
    "questions": ("get", CAN_REVIEW),
    "guidelines": ("get", ANY_ROLE),
    "guidelines_seen": ("post", ANY_ROLE),
    "assignment_rules": ("get", CAN_RUN),
    "api:assignment_rules": ("get", CAN_RUN),
    "api:assignment_person": ("get", CAN_RUN),
    "batch_new": ("get", CAN_RUN),
    "judge": ("get", CAN_JUDGE),
    "judge_undo": ("post", CAN_JUDGE),
    "history": ("get", CAN_JUDGE),
    "dialogues": ("get", CAN_JUDGE),
    "campaigns": ("get", CAN_RUN),
    "close_campaign": ("post", CAN_RUN),
    "start_policy": ("post", CAN_RUN),
    "stop_policy": ("post", CAN_RUN),
    "my_progress": ("get", CAN_JUDGE),
    "quality": ("get", CAN_REVIEW),
    "gold_items": ("get", CAN_RUN),
    "review_queue": ("get", CAN_REVIEW),
    "prompts": ("get", CAN_READ_DATA),
    "records": ("get", CAN_READ_DATA),
    "records_act": ("post", CAN_RUN),
    "records_views": ("post", CAN_READ_DATA),
    "prompt_import": ("get", CAN_RUN),
    "snapshots": ("get", CAN_READ_DATA),
    "source_sign_off": ("post", CAN_RUN),
    "sources": ("get", CAN_READ_DATA),
    "source": ("get", CAN_READ_DATA),
    "source_sign": ("post", CAN_RUN),
    "source_withdraw": ("post", CAN_RUN),
    "mixture": ("get", CAN_READ_DATA),
    "advisor": ("get", CAN_READ_DATA),
    "advisor_batch": ("post", CAN_RUN),
    "filters": ("get", CAN_READ_DATA),
    "filters_run": ("post", CAN_RUN),
    "filter": ("get", CAN_READ_DATA),
    "snapshot": ("get", CAN_READ_DATA),
    "snapshot_rows": ("get", CAN_READ_DATA),
    "snapshot_download": ("get", CAN_EXPORT),
    "snapshot_archive": ("get", CAN_EXPORT),
    "snapshot_forms": ("get", CAN_EXPORT),
    "snapshot_form": ("get", CAN_EXPORT),
    "snapshot_push": ("get", CAN_EXPORT),
    "snapshot_compare": ("get", CAN_READ_DATA),
    "snapshot_verify": ("post", CAN_READ_DATA),
    "snapshot_deprecate": ("post", CAN_EXPORT),
    "withdrawals": ("get", CAN_RUN),
    "api:snapshot_diff": ("get", CAN_EXPORT),
    "api:snapshot_verify": ("post", CAN_READ_DATA),
    "api:snapshot_deprecation": ("put", CAN_EXPORT),
    "api:withdrawals": ("get", CAN_RUN),
    "api:prompts": ("get", CAN_READ_DATA),
    "api:batches": ("get", CAN_READ_DATA),
    "api:judgments": ("get", CAN_EXPORT),
    "api:ratings": ("get", CAN_EXPORT),
    "api:demonstrations": ("get", CAN_EXPORT),
    "api:agreement": ("get", CAN_READ_DATA),
    "api:quality": ("get", CAN_READ_DATA),
    "api:quality_votes": ("get", CAN_EXPORT),
    "api:snapshots": ("get", CAN_READ_DATA),
    "api:snapshot": ("get", CAN_READ_DATA),
    "api:snapshot_archive": ("get", CAN_EXPORT),
    "api:snapshot_file": ("get", CAN_EXPORT),
    "api:snapshot_forms": ("get", CAN_READ_DATA),
    "api:snapshot_form": ("get", CAN_EXPORT),
    "api:snapshot_pushes": ("get", CAN_EXPORT),
    "api:judging_next": ("post", CAN_JUDGE),
    "api:judging_undo": ("post", CAN_JUDGE),
    "rounds": ("get", CAN_READ_DATA),
    "round": ("get", CAN_READ_DATA),
    "launch": ("get", CAN_RUN),
    "check_launch": ("post", CAN_RUN),
    "measure_model": ("post", CAN_RUN),
    "build_base": ("post", CAN_RUN),
    "own_model": ("get", CAN_RUN),
    "use_model": ("post", CAN_RUN),
    "drop_model": ("post", CAN_RUN),
    "reward_round": ("get", CAN_RUN),
    "selection": ("get", CAN_RUN),
    "close_annotation": ("post", CAN_RUN),
    "simulate": ("post", CAN_RUN),
    "give_verdict": ("post", CAN_RUN),
    "cancel_round": ("post", CAN_RUN),
    "continue_in_doubt": ("post", CAN_RUN),
    "retrain": ("post", CAN_RUN),
    "retry_stage": ("post", CAN_RUN),
    "compare_rounds": ("get", CAN_READ_DATA),
    "compared_metrics": ("get", CAN_READ_DATA),
    "stage_log": ("get", CAN_READ_DATA),
    "stage_log_text": ("get", CAN_READ_DATA),
    "metrics": ("get", CAN_READ_DATA),
    "metrics_csv": ("get", CAN_READ_DATA),
    "samples": ("get", CAN_READ_DATA),
    "dashboard": ("get", CAN_READ_DATA),
    "models": ("get", CAN_READ_DATA),
    "retire_policy": ("post", CAN_RUN),
    "panel_csv": ("get", CAN_READ_DATA),
    "api:rounds": ("get", CAN_READ_DATA),
    "api:round": ("get", CAN_READ_DATA),
    "api:scores": ("get", CAN_READ_DATA),
    "api:jobs": ("get", CAN_READ_DATA),
    "api:job": ("get", CAN_READ_DATA),
    "api:job_metrics": ("get", CAN_READ_DATA),
    "api:round_cancel": ("post", CAN_RUN),
    "api:round_continue": ("post", CAN_RUN),
    "api:round_retrain": ("post", CAN_RUN),
    "api:round_retry": ("post", CAN_RUN),
    "api:job_cancel": ("post", CAN_RUN),
}
# Addresses that belong to no project: each says in its own tests what it shows to whom.
OWN_PAGES = {
    "home",
    "shortcuts",
    "preferences",
    "project_new",
    "batch_close",  # These name a batch: tests/annotation/projects/test_campaigns.py says who may.
    "batch_open",
    # tests/rlhf/pages/test_models.py says who opens and downloads a model.
    "model",
    "model_download",
    "model_file",
    "model_card",
    "batch_take_back",  # tests/rlhf/pages/test_round_acts.py says who may.
    "judge_one",
    "judge_after",
    "ask_about",
    # What one person judged, and one case: tests/annotation/pages/test_quality_pages.py.
    "quality_person",
    "review_case",
    # tests/annotation/pages/test_record_pages.py says who opens a prompt, a comparison and a batch.
    "prompt",
    "comparison",
    "batch",
    "act_undo",  # tests/annotation/pages/test_manager_pages.py
    "tokens",
    "token_revoke",
    "sessions",
    "notices_seen",
    "invitation",
    "api_reference",
    "api:projects",
}
# One person's own assignment: tests/annotation/pages/test_judge_pages.py says that nobody else reaches it.
OWN_PAGES |= {"api:judging_" + act for act in ("submit", "skip", "draft", "renew", "release")}
# tests/annotation/projects/test_assignment_settings.py says who reaches these batches.
OWN_PAGES |= {"api:assignment_batch", "api:assignment_scores"}
# tests/annotation/data/test_uploads.py says who reaches these batches.
OWN_PAGES |= {"api:batch", "api:batch_comparisons", "api:batch_open", "api:batch_close"}
# tests/annotation/pages/test_filter_pages.py says who labels which texts.
OWN_PAGES |= {"filter_label"}
# tests/annotation/pages/test_source_pages.py says who reads which documents.
OWN_PAGES |= {"source_document"}
# One person's own dialogue: tests/annotation/pages/test_dialogue_pages.py says that nobody else reaches it.
OWN_PAGES |= {"dialogue", "dialogue_state", "dialogue_stream"}
# tests/annotation/data/test_personal_data.py says who sees whose data.
OWN_PAGES |= {"my_data", "my_data_download", "ask_for_erasure", "erasures"}
# allauth's pages, each about who asks: tests/config/test_second_factor.py and test_single_sign_on.py.
OUTSIDE = ("account_", "mfa_", "socialaccount_", "openid_connect_", "admin:", "api:schema")


def addresses(resolver=None, prefix="", namespaces=()):
    """(qualified name, route) of every address of the installation."""
    for entry in (resolver or get_resolver()).url_patterns:
        route = prefix + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inner = (*namespaces, entry.namespace) if entry.namespace else namespaces
            yield from addresses(entry, route, inner)
        elif isinstance(entry, URLPattern):
            yield ":".join((*namespaces, entry.name or "")), route


@pytest.fixture
def cast(project, ada, vera, rita, grace, otto):
    return {"annotator": ada, "reviewer": vera, "researcher": rita, "admin": grace, "otto": otto}


@pytest.fixture
def things(project, grace):
    """One of each thing that an address can name, so that a 404 means "not for you"."""
    assignment = judged(project)
    member(project, assignment.annotator.username, "annotator")
    snapshot = freeze_snapshot(project, by=None)
    one = Round.objects.create(project=project, number=1, plan=Round.FULL_PLAN)
    job = Job.objects.create(project=project, round=one, stage="generate")
    policy = Checkpoint.objects.create(project=project, kind="policy", name="base", path="x")
    campaign = new_campaign(project, grace, writing={"policies": [str(policy.uid)]})
    return {
        "policy": policy.pk,
        "campaign": campaign.pk,
        "slug": project.slug,
        "version": snapshot.version,
        "other": snapshot.version,
        "number": 1,
        "uid": job.uid,
        "stage": "generate",
        "panel": "scores",
        "pk": assignment.comparison.prompt.source_id,
        "name": "README.md",
        "key": "hate",
        "username": assignment.annotator.username,
        "table": "responses",
        "form": "kto",
    }


def address(name, things):
    route = next(route for found, route in addresses() if found == name)
    wanted = re.findall(r"<(?:\w+:)?(\w+)>", route)
    return reverse(name, kwargs={key: things[key] for key in wanted})


def test_every_address_is_in_the_table():
    undecided = {
        name
        for name, _ in addresses()
        if name not in PAGES and name not in OWN_PAGES and not name.startswith(OUTSIDE)
    }
    assert undecided == set(), "decide who may open these: add them to the table above"


@pytest.mark.parametrize("name", PAGES)
def test_only_the_roles_in_the_table_reach(name, client, cast, things):
    method, allowed = PAGES[name]
    url = address(name, things)
    for role, person in cast.items():
        client.force_login(person)
        status = getattr(client, method)(url).status_code
        if role in allowed:
            assert status not in (401, 403, 404), f"{role} should reach {url}: {status}"
            assert status < 500
        else:
            assert status == 404, f"{role} should not know of {url}: {status}"


@pytest.mark.parametrize("name", PAGES)
def test_a_stranger_is_asked_to_sign_in(name, client, things):
    method, _ = PAGES[name]
    answer = getattr(client, method)(address(name, things))
    if name.startswith("api:"):
        assert answer.status_code == 401
    elif method == "post":  # They get back what they sent, with the way to sign in beside it.
        assert answer.status_code == 401
        assert 'href="/accounts/login/' in answer.content.decode()
    else:
        assert answer.status_code == 302
        assert answer["Location"].startswith("/accounts/login/")
