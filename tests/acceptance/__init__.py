"""Tests of the `projector` command as a process, on real servers."""
