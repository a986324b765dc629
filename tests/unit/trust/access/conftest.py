"""No test here leaves a directory of users open."""

from tests.support.opened_directories import none_stays_open

__all__ = ["none_stays_open"]
