"""Install a wheel into a new environment outside of the checkout, and check that it works there.

Usage: python -m tests.wheel.check dist/*.whl
"""

import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ("migrations", "schemas")

FIND_FOLDERS = f"""
import json, projector
from projector import resources
print(json.dumps({{name: str(resources.folder(name)) for name in {SHIPPED}}} | {{"package": projector.__path__[0]}}))
"""


def check(wheel: Path, outside: Path) -> None:
    """Raise AssertionError or CalledProcessError if the installed wheel does not work."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJECTOR_"))}

    def run(*command: str | Path) -> str:
        return subprocess.run(
            command, cwd=outside, env=environment, check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()

    venv.create(outside / "venv", with_pip=True)
    programs = outside / "venv" / "bin"
    run(programs / "python", "-m", "pip", "install", "-qq", "--disable-pip-version-check", wheel)

    version = wheel.name.split("-")[1]
    printed = run(programs / "projector", "--version")
    assert printed.split()[-1] == version, f"`projector --version` prints {printed!r}, the wheel is {version}"

    folders = json.loads(run(programs / "python", "-c", FIND_FOLDERS))
    package = Path(folders["package"])
    assert package.is_relative_to(outside), f"projector was imported from {package}"
    assert (package / "py.typed").is_file(), "the wheel has no py.typed"
    for name in SHIPPED:
        installed = Path(folders[name])
        assert installed == package / name, f"{name} was found at {installed}"
        assert files(installed) == files(ROOT / name), f"{name} differs from the checkout"


def files(folder: Path) -> set[Path]:
    """Return the paths of all files in a folder, relative to it."""
    return {
        path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="projector-wheel-") as outside:
        check(Path(sys.argv[1]).resolve(), Path(outside).resolve())
    print(f"{Path(sys.argv[1]).name} works outside of the checkout")  # noqa: T201
