"""A fresh Python that finds the modules that this process finds: whatever files lie in the working directory (`python -m` and
`-c` look there first), none of them is taken for one of ours, of the standard library or of a package."""

import sys
from collections.abc import Sequence

_PATH_FIRST = "import sys; n = int(sys.argv[1]) + 2; sys.path[:] = sys.argv[2:n]; del sys.argv[1:n]; "  # sys is built in


def command(code: str, *arguments: str, path: Sequence[str] | None = None) -> list[str]:
    """The command line that runs `code` with `arguments` as sys.argv[1:]; `path`: of imports, by default this process's."""
    path = sys.path if path is None else path
    return [sys.executable, "-c", _PATH_FIRST + code, str(len(path)), *path, *arguments]
