"""Record the picture of a terminal program's screen: `python docs/record.py docs/up.svg PROVEN make up`.

Runs the command in a terminal of its own (RECORD_LINES high, else 34), waits until a text appears on its screen, sends
Ctrl-C, and saves what the screen showed at that moment as SVG.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import struct
import sys
import termios
import time
from fcntl import ioctl
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 124, int(os.environ.get("RECORD_LINES", "34"))
LIMIT_S = 600
AFTER_S = 1.0
"""how long the program may go on drawing once the text is there"""


def main(picture: str, wanted: str, *command: str) -> None:
    """Run `command` until `wanted` is on its screen; write `picture`."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], command, {**os.environ, "TERM": "xterm-256color", "COLORTERM": ""})  # noqa: S606
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    deadline_s = time.monotonic() + LIMIT_S
    found = False
    while time.monotonic() < deadline_s:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                stream.feed(os.read(terminal, 65536))
            except OSError:  # the program has ended
                break
        if not found and any(wanted in line for line in screen.display):
            found, deadline_s = True, time.monotonic() + AFTER_S
    if not found:
        sys.exit(f"{wanted!r} never came; the screen was:\n" + "\n".join(screen.display))
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    for line in lines(screen):
        console.print(line, soft_wrap=True)
    Path(picture).write_text(console.export_svg(title=" ".join(command)), encoding="utf-8")
    os.write(terminal, b"\x03")  # Ctrl-C
    with contextlib.suppress(OSError):  # raised when the program has closed the terminal
        while os.read(terminal, 65536):
            pass
    os.waitpid(pid, 0)


def lines(screen: pyte.Screen) -> list[Text]:
    """The screen as styled lines, without the empty ones at its end."""
    result = []
    for y in range(screen.lines):
        text = Text()
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        for (fg, bold), run in groupby(cells, lambda cell: (cell.fg, cell.bold)):
            colour = None if fg == "default" else fg.replace("brown", "yellow").replace("bright", "bright_")
            text.append("".join(cell.data for cell in run), Style(color=_known(colour), bold=bold))
        text.rstrip()
        result.append(text)
    while result and not result[-1].plain:
        result.pop()
    return result


def _known(colour: str | None) -> str | None:
    return f"#{colour}" if colour and len(colour) == 6 and all(c in "0123456789abcdef" for c in colour) else colour


if __name__ == "__main__":
    main(*sys.argv[1:])
