"""One hypothesis profile for all property tests: no deadlines, because machines are shared."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "bionemo", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("bionemo")
