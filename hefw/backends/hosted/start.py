"""The script that a worker's interpreter runs: finds hefw and the backend's package where it is told, then works.

They are the very files of the process that started it, and nothing that lies beside them comes along: that process may
be of another Python, for which the numpy next to hefw was not compiled.
"""

from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path


class Finder:
    """Finds some modules by name: each in the folders of a package, or in a file."""

    def __init__(self, places: dict[str, list[str]]) -> None:
        self.places = places

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """As the import system asks for it."""
        folders = self.places.get(name)
        if folders is None:
            return None
        first = Path(folders[0])
        if first.is_file():
            return spec_from_file_location(name, first)
        initial = first / "__init__.py"
        if initial.is_file():
            return spec_from_file_location(name, initial, submodule_search_locations=folders)
        namespace = ModuleSpec(name, None, is_package=True)
        namespace.submodule_search_locations = folders
        return namespace


def main() -> int:
    """Take the places, JSON, off the command line; the rest is the worker's."""
    if sys.version_info < (3, 10):  # noqa: UP036 (whichever interpreter it is given)
        print(f"error: a worker needs Python 3.10 or newer, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    here = Path(__file__).resolve().parent
    sys.path[:] = [
        folder for folder in sys.path if Path(folder).resolve() != here
    ]  # Python puts a script's folder there
    sys.meta_path.insert(0, Finder(json.loads(sys.argv.pop(1))))
    from hefw.backends.hosted import worker

    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
