"""Hooks of the site's build: files beside docs/ become pages, and the tutorial's notebook becomes one.

Links in the tree are right where they stand. In the site, docs/ is the root, and what is beside it keeps its path.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from docs.tools import notebook

ROOT = Path(__file__).parents[2]
BESIDE = ("CHANGELOG.md", "policies/README.md", "*/why.md", "*/connexon_*/**/why.md")
"""Files outside docs/ that are pages, too."""
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_RUN = re.compile(r"^(```(?:sh|python)) run[^\n]*$", re.MULTILINE)
"""What tells the tests to type a block, which is not for readers."""


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that docs/ does not have as Markdown."""
    for pattern in BESIDE:
        for file in sorted(ROOT.glob(pattern)):
            name = file.relative_to(ROOT).as_posix()
            if files.get_file_from_path(name) is None:
                files.append(File.generated(config, name, content=file.read_text(encoding="utf-8")))
    text = notebook.to_markdown(notebook.load(notebook.TUTORIAL))
    files.append(File.generated(config, "tutorial.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the tree into links between pages; what is no page is only named."""
    here = page.file.src_uri
    place = here if (ROOT / here).is_file() else f"docs/{here}"

    def resolved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link["target"]))
        uri = target.removeprefix("docs/").replace("tutorial.ipynb", "tutorial.md")
        if files.get_file_from_path(uri) is not None:
            relative = posixpath.relpath(uri, posixpath.dirname(here) or ".")
            return f"[{link['text']}]({relative}{link['anchor'] or ''})"
        # A file that is missing stays a link, for the strict build to complain of.
        return f"{link['text']} (`{target}`)" if (ROOT / target).exists() else link[0]

    return _RUN.sub(r"\1", _LINK.sub(resolved, markdown))
