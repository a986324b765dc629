"""No test here leaves a task, a thread, a process or an open file behind; examples have no deadline."""

from hypothesis import HealthCheck, settings

from tests.support.leaks import no_leaks

__all__ = ["no_leaks"]

# On a busy machine an example can take longer than Hypothesis' deadline; pytest-timeout bounds each test.
settings.register_profile("p2pmodel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("p2pmodel")
