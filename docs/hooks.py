"""What mkdocs.yml adds to MkDocs: generated reference pages, pages of linked sources, equations as MathML.

A page links to a source file as a reader of the repository would, `[decide](../ssql_ros/shield/decision.py#decide)`.
On the site that leads to a page with the file, at the line that defines the name. Equations are LaTeX, between `$$` or
between `` $` `` and `` `$ ``, as GitHub renders them; here they become MathML, so that no script is fetched.
"""

from __future__ import annotations

import ast
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

DOCS = Path(__file__).parent
ROOT = DOCS.parent
# Pages that lie at the top of the repository, and what they are called here.
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
# A link or an image: what stands before its target, the target without its anchor, the anchor.
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=[)\s])")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^\$\$\n(.*?)\n\$\$$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`]+)`\$")
LEXERS = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "sh", ".msg": "text"}


def on_config(config: Any) -> Any:
    """Let the generators be found."""
    for folder in (str(ROOT), str(DOCS)):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the reference, the pages at the top of the repository, and every source file that a page links to."""
    import gen_reference

    made = dict(gen_reference.pages(ROOT))
    for name, page in TOP.items():
        if page != "index.md":
            made[page] = _relinked((ROOT / name).read_text(), "", page)
    texts = [(file.src_uri, (DOCS / file.src_uri).read_text()) for file in files if file.src_uri.endswith(".md")]
    texts += [("../" + name, (ROOT / name).read_text()) for name in TOP] + list(made.items())
    for source in sorted({path for place, text in texts for path in sources_of(place, text)}):
        made[_page_of(source)] = _source_page(source)
    for path, text in made.items():
        if (present := files.get_file_from_path(path)) is not None:
            files.remove(present)
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links that leave docs/ to the page of the source; turn equations into MathML."""
    if page.file.src_uri.startswith("source/"):
        return markdown
    if page.file.src_uri not in TOP.values() or page.file.src_uri == "index.md":
        markdown = _relinked(markdown, posixpath.join("docs", posixpath.dirname(page.file.src_uri)), page.file.src_uri)
    return _outside_fences(markdown, _equations)


def on_page_content(html: str, **_: Any) -> str:
    """Lead links to sources to the line that they are for."""
    return re.sub(r"\?line=(\d+)\"", r'#__codelineno-0-\1"', html)


def sources_of(place: str, text: str) -> set[str]:
    """Return the files outside of docs/ that a page links to; `place`: its path from docs/."""
    folder = posixpath.join("docs", posixpath.dirname(place))
    targets = {posixpath.normpath(posixpath.join(folder, match[2])) for match in LINK.finditer(text)}
    return {path for path in targets if not path.startswith(("docs/", "../")) and path not in TOP}


def line_of(path: Path, name: str) -> int | None:
    """Return the line of a Python file that defines `name` (`Class.method` too); None: it defines none."""
    *classes, last = name.split(".")
    body: list[Any] = list(ast.parse(path.read_text()).body)
    for outer in classes:
        body = next((list(node.body) for node in body if isinstance(node, ast.ClassDef) and node.name == outer), [])
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        named = [getattr(node, "name", None), *(getattr(target, "id", None) for target in targets)]
        if last in named:
            return int(node.lineno)
    return None


def _page_of(source: str) -> str:
    return f"source/{source}.md"


def _source_page(source: str) -> str:
    text = (ROOT / source).read_text()
    language = LEXERS.get(Path(source).suffix, "text")
    fence = "~" * 12
    return f'---\nsearch:\n  exclude: true\n---\n\n# {source}\n\n{fence} {language} linenums="1"\n{text}{fence}\n'


def _relinked(text: str, folder: str, page: str) -> str:
    """Return a page's text with links as the site has them; `folder`: where the text lies in the repository."""
    here = posixpath.dirname(page)

    def link(match: re.Match[str]) -> str:
        before, target, anchor = match[1], match[2], match[3] or ""
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

    return _outside_fences(text, lambda part: LINK.sub(link, part))


def _outside_fences(text: str, change: Any) -> str:
    """Return the text, changed wherever it is no fenced code."""
    parts, end = [], 0
    for match in FENCE.finditer(text):
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])


def _equations(text: str) -> str:
    text = BLOCK.sub(lambda match: convert(" ".join(match[1].split()), display="block"), text)
    return INLINE.sub(lambda match: convert(match[1]), text)
