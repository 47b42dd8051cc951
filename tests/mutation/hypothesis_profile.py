"""Hypothesis for mutants, as a plugin of pytest: the same examples in each run, and no search for a smaller one."""

from hypothesis import Phase, settings

settings.register_profile(
    "mutants",
    database=None,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile("mutants")
