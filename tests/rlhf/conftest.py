import pytest

from tests.rlhf.factories import flight


@pytest.fixture
def mission(project, grace):
    """Base, two promoted rounds, a third in PPO (tests/rlhf/factories.py)."""
    return flight(project, grace)
