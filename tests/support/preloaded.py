"""Imports the whole program, so that processes forked from this one start fast."""

import importlib
import pkgutil

import projector

for module in pkgutil.walk_packages(projector.__path__, "projector."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
