"""Embedded servers, a simulated fleet, and the demo with its view."""
