from dataclasses import fields, is_dataclass
from importlib import import_module
from pkgutil import iter_modules

import projector.domain
from projector.domain.checkpoint import Checkpoint
from projector.storage import columns
from projector.stream import revisions


def test_data_classes_are_frozen_and_slotted_and_take_keywords_only() -> None:
    modules = [import_module(f"projector.domain.{module.name}") for module in iter_modules(projector.domain.__path__)]
    found = {
        kind for module in (*modules, columns, revisions) for kind in vars(module).values() if isinstance(kind, type)
    }
    records = {kind for kind in found if is_dataclass(kind)}
    assert {Checkpoint, columns.FacetColumns, revisions.Revision} <= records
    for record in records:
        assert record.__dataclass_params__.frozen, record  # type: ignore[attr-defined]
        assert "__slots__" in vars(record), record
        assert all(field.kw_only for field in fields(record)), record
