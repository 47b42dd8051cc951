"""Imports the whole program and its libraries, for the processes that are forked from one that has."""

import importlib
import pkgutil

import projector

for module in pkgutil.walk_packages(projector.__path__, "projector."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
