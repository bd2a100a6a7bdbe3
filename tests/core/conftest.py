"""How long the property tests search."""

import hypothesis

# For `make fuzz`: as long as one likes, with new examples each time. The suite has its own settings beside its tests.
hypothesis.settings.register_profile(
    "fuzz",
    max_examples=2_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
        hypothesis.HealthCheck.data_too_large,
    ],
)
