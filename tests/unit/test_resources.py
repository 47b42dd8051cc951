import os
import pwd

import pytest

from projector import resources


def test_user_without_a_home_gets_a_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> None:
        raise KeyError(user)

    for variable in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 65_402)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert resources.data_folder().is_absolute()
