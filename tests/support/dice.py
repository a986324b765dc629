"""Randomness that another run can repeat."""

import logging
import os
import random

import pytest

LOG = logging.getLogger(__name__)  # shown when a test fails


@pytest.fixture
def dice() -> random.Random:
    """Other moments in every run; a failing run prints how to have the same ones again."""
    seed = int(os.environ.get("P2PMODEL_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    LOG.warning("P2PMODEL_TEST_SEED=%d", seed)
    return random.Random(seed)
