"""Exit codes of the command line; 0 is success."""

EXIT_DIFFERENCE = 1
"""A check failed: rows differ, `doctor` found an error, a retried dead letter was parked again, or `wait` timed out."""
EXIT_USAGE = 2
"""The command line or a setting is wrong."""
EXIT_FATAL = 3
"""An error ended the command: a `ProjectorError` other than a wrong setting, or an unexpected one."""
EXIT_INTERRUPTED = 130
"""SIGINT or SIGTERM ended a command before it finished."""
