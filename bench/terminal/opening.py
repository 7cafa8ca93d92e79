"""`bench open`: the last report, in a browser where there is one."""

import os
import sys
import webbrowser
from pathlib import Path

from bench.errors import BenchError
from bench.folders import recall_report


def find_report(named: str = "") -> Path:
    """The page of a report: a file or folder, the name of one under reports/, or the last that was made."""
    if named:
        places = [Path(named), Path(named) / "index.html", Path("reports") / named / "index.html"]
        found = next((p for p in places if p.is_file()), None)
        if found is None:
            raise BenchError(f"no report {named}: neither a page, nor a folder with index.html, nor one under reports/")
        return found
    last = recall_report()
    if last is not None:
        return last
    pages = sorted(Path("reports").glob("*/index.html"), key=lambda p: p.stat().st_mtime)
    if not pages:
        raise BenchError("no report was made yet; `bench report` makes one")
    return pages[-1]


def open_report(named: str = "") -> str:
    """Open it; what to print: its path, and what to do with it where no browser can be started."""
    page = find_report(named).resolve()
    seen = sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.environ.get("BROWSER"))
    if seen and webbrowser.open(page.as_uri()):
        return str(page)
    return f"{page}\n(no browser can be started here: open this file in one, or copy it; it is a single page)"
