"""What mkdocs.yml adds to MkDocs: generated reference pages, pages of linked sources, equations as MathML.

A page links to a source file as a reader of the repository would, `[decide](../ssql_ros/shield/decision.py#decide)`.
On the site that leads to a page with the file, at the line that defines the name. Equations are LaTeX, between `$$` or
between `` $` `` and `` `$ ``, as GitHub renders them; here they become MathML, so that no script is fetched.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), str(ROOT)]  # MkDocs loads this file by its path alone

import gen_reference  # noqa: E402
from links import LINK, TOP, line_of, links, outside_fences  # noqa: E402

BLOCK = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`]+)`\$")
LEXERS = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "sh"}
PLAIN = "---\nsearch:\n  exclude: true\n---\n\n"
FENCE = "~" * 12


def on_files(files: Any, config: Any) -> Any:
    """Add the reference, the pages at the top of the repository, and every source file that a page links to."""
    made = dict(gen_reference.pages(ROOT))
    texts = {f"docs/{path}": text for path, text in made.items()}
    texts |= {name: (ROOT / name).read_text() for name in TOP}
    texts |= {f"docs/{file.src_uri}": (DOCS / file.src_uri).read_text() for file in files if _is_page(file.src_uri)}
    made |= {page: _relinked(texts[name], name, page) for name, page in TOP.items() if page != "index.md"}
    targets = {target for place, text in texts.items() for target, _ in links(place, text)}
    for source in sorted(targets):
        if not source.startswith("docs/") and source not in TOP:
            made[_page_of(source)] = _source_page(source)
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the page of the source; turn equations into MathML."""
    path = page.file.src_uri
    if path.startswith("source/"):
        return markdown
    if path == "index.md" or path not in TOP.values():
        markdown = _relinked(markdown, f"docs/{path}", path)
    return outside_fences(markdown, _equations)


def on_page_content(html: str, **_: Any) -> str:
    """Lead links to sources to the line that they are for."""
    return re.sub(r"\?line=(\d+)\"", r'#__codelineno-0-\1"', html)


def _is_page(path: str) -> bool:
    return path.endswith(".md")


def _page_of(source: str) -> str:
    return f"source/{source}.md"


def _source_page(source: str) -> str:
    language = LEXERS.get(Path(source).suffix, "text")
    text = (ROOT / source).read_text()
    return f'{PLAIN}# {source}\n\n{FENCE} {language} linenums="1"\n{text}{FENCE}\n'


def _relinked(text: str, place: str, page: str) -> str:
    """Return a page's text with links as the site has them.

    Args:
        place: where the text lies in the repository.
        page: where the page lies on the site.
    """
    folder, here = posixpath.dirname(place), posixpath.dirname(page)

    def link(match: re.Match[str]) -> str:
        before, target, anchor = match[1], match[2], match[3] or ""
        if not target:
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path in TOP:
            path = TOP[path]
        elif path.startswith("docs/"):
            path = path.removeprefix("docs/")
        else:
            line = line_of(ROOT / path, anchor[1:]) if anchor and path.endswith(".py") else None
            # MkDocs cannot see the anchors of lines; `on_page_content` makes them of this.
            path, anchor = _page_of(path), f"?line={line}" if line else ""
        return f"{before}{posixpath.relpath(path, here or '.')}{anchor}"

    return outside_fences(text, lambda part: LINK.sub(link, part))


def _equations(text: str) -> str:
    text = BLOCK.sub(lambda match: convert(" ".join(match[1].split()), display="block"), text)
    return INLINE.sub(lambda match: convert(match[1]), text)
