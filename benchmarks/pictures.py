"""The pictures of docs/: what the terminal and the report look like.

    python -m benchmarks.pictures terminal [NAME...]     docs/pictures/{list,plan}.svg, as in an empty folder
    python -m benchmarks.pictures report PAGE NAME       docs/pictures/NAME.png and NAME-phone.png of a report's index.html

Text in the terminal's pictures is text (a reader can copy it); they name no font that would have to be fetched. Report
pictures need Chromium and Pillow and stay below 300 KB by having 128 colours.
"""

import contextlib
import fcntl
import io
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS = 110
SHOWN = {  # picture -> (arguments of bench, lines that are shown)
    "list": (("list",), 22),
    "plan": (("plan", "msmix-t1", "slad-*"), 30),
}
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
WIDTHS = {"": (1280, 1010), "-phone": (390, 1000)}


def terminal(names: list[str]) -> None:
    """Run the commands in an empty folder and keep what they print, with its colours, as SVG."""
    from rich.console import Console
    from rich.text import Text

    with tempfile.TemporaryDirectory() as empty:
        for name, (arguments, lines) in ((n, s) for n, s in SHOWN.items() if n in (names or SHOWN)):
            printed = _printed(arguments, Path(empty)).splitlines()
            said = shlex.join(("bench", *arguments))
            shown = [f"$ {said}", *printed[:lines], *(["..."] if len(printed) > lines else [])]
            page = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
            page.print(Text.from_ansi("\n".join(shown)))
            (FOLDER / f"{name}.svg").write_text(page.export_svg(title=said, code_format=_format()), encoding="utf-8")


def _printed(arguments: tuple[str, ...], folder: Path) -> str:
    """What bench prints on a terminal of COLUMNS."""
    env = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(Path(__file__).parents[1]), "HOME": str(folder)}
    command = [sys.executable, "-m", "bench", *arguments]
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    process, found = subprocess.Popen(command, cwd=folder, env=env, stdout=theirs, stderr=theirs), b""
    os.close(theirs)
    with contextlib.suppress(OSError):  # what reading gives when the other end is closed
        while chunk := os.read(ours, 1 << 16):
            found += chunk
    os.close(ours)
    if process.wait():
        sys.exit(found.decode())
    return found.decode().replace("\r\n", "\n")


def _format() -> str:
    """rich's template without its web font."""
    from rich._export_format import CONSOLE_SVG_FORMAT

    bare = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.S)
    bare = re.sub(r"<!-- .*? -->\s*", "", bare)
    return bare.replace("Fira Code", "monospace").replace("font-family: monospace, monospace", f"font-family: {_FONT}")


def report(page: str, name: str) -> None:
    """The top of a report, on a desk and on a phone."""
    from PIL import Image

    for suffix, (width, height) in WIDTHS.items():
        path = FOLDER / f"{name}{suffix}.png"
        subprocess.run([
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}",
            f"--screenshot={path}", Path(page).resolve().as_uri(),
        ], check=True, capture_output=True)
        with Image.open(path) as picture:
            small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
        small.save(path, optimize=True)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:2] == ["terminal"]:
        terminal(sys.argv[2:])
    elif sys.argv[1:2] == ["report"] and len(sys.argv) == 4:
        report(*sys.argv[2:])
    else:
        sys.exit(__doc__)
