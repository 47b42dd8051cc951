"""Whether `--verbose` was given."""


class Verbosity:
    """Set once, by the first option of the command line."""

    on = False
