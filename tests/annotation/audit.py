"""The counters, recounted from the rows they summarise."""

from annotation.models import Assignment, Comparison

State = Assignment.State


def assert_counters_are_right():
    """`taken` is live leases and judgments that hold a place, `judged` the latter; both fit."""
    for comparison in Comparison.objects.all():
        places = comparison.assignments.filter(is_extra=False)
        taken = places.filter(state__in=[State.LEASED, State.JUDGED]).count()
        judged = places.filter(state=State.JUDGED).count()
        assert (comparison.taken, comparison.judged) == (taken, judged), comparison.pk
        assert comparison.taken <= comparison.needed, comparison.pk
        assert comparison.is_free == (comparison.taken < comparison.needed), comparison.pk
