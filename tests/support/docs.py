"""The commands of the documentation: shell blocks, and what each line needs that a laptop has not."""

import re
import shlex
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
_BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>[^>]+) -->\n+)?^```bash\n(?P<body>.*?)^```$", re.M | re.S)
_HERE_DOCUMENT = re.compile(r" ?<<'?(\w+)'?(?=.*$)(?s:.*?)^\1$", re.M)
_LINE_NEEDS = re.compile(r"# needs ")


class Block(NamedTuple):
    page: str
    needs: str | None
    body: str

    @property
    def lines(self) -> list[str]:
        return _HERE_DOCUMENT.sub("", self.body).replace("\\\n", " ").splitlines()

    @property
    def commands(self) -> Iterator[list[str]]:
        """The words of each command, without comments and variables set for it."""
        return _commands(self.lines)

    @property
    def to_run(self) -> Iterator[list[str]]:
        """Those that need nothing but this project."""
        return _commands([] if self.needs else [line for line in self.lines if not _LINE_NEEDS.search(line)])


def _commands(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        for command in re.split(r" && | \| ", line):
            words = shlex.split(command, comments=True)
            while words and re.fullmatch(r"[A-Z][A-Za-z_]*=.*", words[0]):
                words = words[1:]
            if words:
                yield words


def blocks_of(page: Path) -> Iterator[Block]:
    for found in _BLOCK.finditer(page.read_text(encoding="utf-8")):
        yield Block(page.name, found["needs"], found["body"])


BLOCKS = list(chain.from_iterable(map(blocks_of, PAGES)))
