"""Exit codes of the command line; 0 is success."""

EXIT_DIFFERENCE = 1
"""Something was found: rows that differ, an error of `doctor`, a timeout."""
EXIT_USAGE = 2
"""The command line or a setting is wrong."""
EXIT_FATAL = 3
EXIT_INTERRUPTED = 130
"""SIGINT or SIGTERM ended a command that has to finish to be of use."""
