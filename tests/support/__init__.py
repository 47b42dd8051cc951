"""Support for tests of several directories."""
