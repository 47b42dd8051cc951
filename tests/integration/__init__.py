"""Tests of the parts of the daemon on real servers, inside the process of the test."""
