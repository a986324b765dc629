"""No test here leaves a task, a thread, a process or an open file behind."""

from tests.support.leaks import no_leaks

__all__ = ["no_leaks"]
