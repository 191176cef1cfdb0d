"""Rows for tests. The cast: ada and ben annotate, vera reviews, rita researches, grace is admin;

otto is admin of another project and must never see this one.
"""

import uuid

import factory
from django.utils import timezone
from factory.django import DjangoModelFactory

from annotation.models import (
    Assignment,
    Batch,
    Comparison,
    Judgment,
    Membership,
    Project,
    Prompt,
    Response,
    Source,
    User,
    content_hash,
)


class UserFactory(DjangoModelFactory):
    class Meta:
        model = User
        skip_postgeneration_save = True

    username = factory.Sequence(lambda n: f"person{n}")
    password = factory.django.Password("a long enough password")


class ProjectFactory(DjangoModelFactory):
    class Meta:
        model = Project

    slug = factory.Sequence(lambda n: f"project-{n}")
    name = factory.LazyAttribute(lambda o: o.slug.replace("-", " ").title())
    guidelines = "Prefer the answer that **does what was asked** and harms nobody."


class SourceFactory(DjangoModelFactory):
    class Meta:
        model = Source

    project = factory.SubFactory(ProjectFactory)
    name = "Written for the tests"
    licence = "CC0-1.0"
    signed_off_at = factory.LazyFunction(timezone.now)


class PromptFactory(DjangoModelFactory):
    class Meta:
        model = Prompt

    project = factory.SubFactory(ProjectFactory)
    source = factory.SubFactory(SourceFactory, project=factory.SelfAttribute("..project"))
    messages = factory.Sequence(
        lambda n: [{"role": "user", "content": f"How do I water plant number {n}?"}]
    )
    sha256 = factory.LazyAttribute(lambda o: content_hash(o.messages))
    category = "how-to"
    risk = "harmless"


class BatchFactory(DjangoModelFactory):
    class Meta:
        model = Batch

    project = factory.SubFactory(ProjectFactory)
    name = factory.Sequence(lambda n: f"Batch {n}")
    state = Batch.State.OPEN


class ComparisonFactory(DjangoModelFactory):
    """A comparison with `responses` responses, each from a policy named in `source`."""

    class Meta:
        model = Comparison
        skip_postgeneration_save = True

    batch = factory.SubFactory(BatchFactory)
    prompt = factory.SubFactory(PromptFactory, project=factory.SelfAttribute("..batch.project"))

    @factory.post_generation
    def responses(self, create, extracted, **kwargs):
        for index in range(4 if extracted is None else extracted):
            ResponseFactory(comparison=self, text=f"Answer {index}: give it a little water.")


class ResponseFactory(DjangoModelFactory):
    class Meta:
        model = Response

    comparison = factory.SubFactory(ComparisonFactory, responses=0)
    text = factory.Sequence(lambda n: f"Give it a little water, {n} spoons.")
    source = "secret-policy-round-7"


def member(project, username, role):
    """A user with this name, made if need be, who has the role in the project."""
    user = User.objects.filter(username=username).first() or UserFactory(username=username)
    Membership.objects.update_or_create(user=user, project=project, defaults={"role": role})
    return user


def key():
    return uuid.uuid4()


def judged(project, by=None, ranks=(1, 2, 2, 3), batch=None, comparison=None, **prompt):
    """A judgment as judging leaves it: `ranks` in the order of the responses, the same on each axis

    (a dict gives each axis its own; None was not ranked). Returns the assignment.
    """
    if comparison is None:
        batch = batch or BatchFactory(project=project)
        comparison = ComparisonFactory(
            batch=batch,
            prompt=PromptFactory(project=project, **prompt),
            responses=len(next(iter(ranks.values())) if isinstance(ranks, dict) else ranks),
        )
    person = by or UserFactory()
    responses = list(comparison.responses.order_by("pk"))
    by_axis = ranks if isinstance(ranks, dict) else dict.fromkeys(project.axis_keys, ranks)
    assignment = Assignment.objects.create(
        comparison=comparison,
        annotator=person,
        state=Assignment.State.JUDGED,
        shown_order=[response.pk for response in responses],
        lease_until=timezone.now(),
    )
    assignment.judgment = Judgment.objects.create(
        assignment=assignment,
        key=uuid.uuid4(),
        answer_sha256="0" * 64,
        ranks={
            axis: {
                str(response.pk): rank
                for response, rank in zip(responses, given, strict=True)
                if rank is not None
            }
            for axis, given in by_axis.items()
        },
    )
    assignment.save()
    comparison.taken += 1
    comparison.judged += 1
    comparison.is_free = comparison.taken < comparison.needed
    comparison.save()
    return assignment
