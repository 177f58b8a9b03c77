"""What holds for all tests."""

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing about d7agent.
settings.register_profile("d7agent", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
settings.load_profile("d7agent")
