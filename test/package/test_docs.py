"""README and docs say only what is there: commands parse, paths and links lead somewhere, the reference is whole."""

import contextlib
import importlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from ssql_ros.cli.main import make_parser
from ssql_ros.robots.tasks import ENV, tasks
from ssql_sim.grid import GRIDS
from studies.experiments import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = {str(path.relative_to(ROOT)): path.read_text() for path in PAGES}
FOLDERS = "ssql_ros|sim|config|docs|test|launch|msg|bench|studies|scripts|examples|cmake"
# A file or folder of the repository; what ends in capitals is a stand-in for many.
PATH = re.compile(rf"(?<![\w/.~$-])((?:{FOLDERS})/[\w./*-]*[\w*])")
PARSER = make_parser()

sys.path.append(str(ROOT / "docs"))
links = importlib.import_module("links")
gen_reference = importlib.import_module("gen_reference")


def fenced(text: str) -> list[str]:
    """The lines of all fenced code, continued lines joined."""
    blocks = [match[0].split("\n", 1)[1].rsplit("\n", 1)[0] for match in links.FENCE.finditer(text)]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def inline(text: str) -> list[str]:
    """All inline code."""
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", links.FENCE.sub("", text))]


def commands(line: str) -> list[list[str]]:
    """The commands of a line of shell, each as its words, without comments."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;")
    lexer.whitespace_split = True
    found: list[list[str]] = [[]]
    for word in lexer:
        if set(word) <= set("&|;"):
            found.append([])
        else:
            found[-1].append(word)
    return [words for words in found if words]


def fault(words: list[str]) -> str:
    """What the real parser says against a command; stand-ins in capitals are numbers."""
    words = ["1" if re.fullmatch(r"[A-Z][A-Z_]*", word) else word for word in words]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            options = PARSER.parse_args(words)
        except SystemExit as end:
            return "" if end.code == 0 else said.getvalue().strip().splitlines()[-1]
    names = {getattr(options, "task", None)} if options.verb != "experiment" else set(options.names)
    known = {*tasks(), *GRIDS} if options.verb != "experiment" else EXPERIMENTS.keys()
    # A task of a robot that the page shows how to make.
    unknown = {name for name in names - {None, "1", "crawl"} - known if not name.startswith(ENV)}
    return f"unknown: {unknown}" if unknown else ""


def ssql_commands() -> list[tuple[str, str, bool]]:
    found = []
    for page, text in TEXTS.items():
        for line in fenced(text):
            found += [(page, shlex.join(words), True) for words in commands(line) if words[0].endswith("ssql")]
        found += [(page, code, False) for code in inline(text) if re.match(r"ssql [a-z-]", code)]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command", "whole"), ssql_commands(), ids=lambda value: str(value)[:90])
def test_command_exists(page, command, whole):
    words = shlex.split(command, comments=True)[1:]
    said = fault(words)
    # In running text a command may lack what it cannot do without, as in `ssql train`.
    assert not said or (not whole and re.search(r"(is|are) required", said)), f"{page}: {command}: {said}"


def test_commands_are_found_and_a_wrong_one_is_refused():
    assert len(ssql_commands()) > 80
    assert "invalid choice" in fault(["dance"])
    assert "unknown" in fault(["run", "--task", "submarine"])
    assert "unrecognized" in fault(["report", "--nothing", "1"])
    assert fault(["bag", "info", "BAG"]) == ""


@pytest.mark.parametrize("page", TEXTS)
def test_paths_exist(page):
    missing = []
    for path in PATH.findall(TEXTS[page]):
        if message := re.fullmatch(r"ssql_ros/(?:msg/)?([A-Z]\w+)", path):
            path = f"msg/{message[1]}.msg"
        elif re.search(r"[A-Z]{3}", path):
            continue
        if not list(ROOT.glob(path)) and path not in generated():
            missing.append(path)
    assert not missing


def generated() -> set[str]:
    """Pages that are made when the site is built."""
    return {page for page in nav_pages() if page.startswith(("docs/reference/", "docs/contributing", "docs/changelog"))}


def nav_pages() -> set[str]:
    """Every page that the site's navigation names."""

    def walk(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for inner in (entry.values() if isinstance(entry, dict) else entry) for page in walk(inner)]

    return {f"docs/{page}" for page in walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])}


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as MkDocs makes them."""
    found = re.findall(r"^#+ (.+)$", links.FENCE.sub("", text), flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\s-]", "", heading.encode("ascii", "ignore").decode()).strip().lower() for heading in found)
    return {re.sub(r"[-\s]+", "-", heading) for heading in plain}


def has_anchor(path: Path, anchor: str) -> bool:
    """Tell whether a page has such a heading, or a source defines such a name."""
    if anchor and path.suffix == ".md":
        return anchor in headings(path.read_text())
    return not anchor or path.suffix != ".py" or links.line_of(path, anchor) is not None


@pytest.mark.parametrize("page", TEXTS)
def test_links_resolve(page):
    broken = []
    for target, anchor in links.links(page, TEXTS[page]):
        if target in generated():
            continue  # `make docs` checks their anchors
        if not (ROOT / target).exists() or not has_anchor(ROOT / target, anchor):
            broken.append(f"{target}#{anchor}")
    assert not broken


@pytest.mark.parametrize("page", TEXTS)
def test_named_tests_and_make_targets_exist(page):
    text = TEXTS[page]
    files = list((ROOT / "test").rglob("*.py"))
    tests = "\n".join(path.read_text() for path in files)
    for name in re.findall(r"`(test_\w+)(?:\.py)?`", text):
        assert name in {path.stem for path in files} or f"def {name}(" in tests, name
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for line in [*fenced(text), *inline(text)]:
        for words in commands(line.replace("'", "").replace('"', "")) if line.startswith("make ") else []:
            called = [word for word in words[1:] if words[0] == "make" and "=" not in word and "/" not in word]
            assert set(called) <= targets, line


@pytest.mark.parametrize("page", TEXTS)
def test_ros_commands_exist(page):
    sources = {path.stem: path.read_text() for path in (ROOT / "ssql_ros/nodes").glob("*_node.py")}
    shared = (ROOT / "ssql_ros/graph/launching.py").read_text() + (ROOT / "ssql_ros/ros/model_receiver.py").read_text()

    def named(name: str, text: str) -> bool:
        return re.search(rf'Parameter\(\s*"{name}"', text + shared) is not None

    for line in [*fenced(TEXTS[page]), *inline(TEXTS[page])]:
        if match := re.match(r"ros2 launch ssql_ros (\S+)", line):
            launch = (ROOT / "launch" / match[1]).read_text() if match[1].islower() else shared
            for name in re.findall(r"(\w+):=", line):
                assert named(name, launch + "".join(sources.values())), line
        elif match := re.match(r"ros2 run ssql_ros (\w+)", line):
            for name in re.findall(r"-p (\w+):=", line):
                assert named(name, sources[match[1]]), line
        elif match := re.match(r"ros2 param set /(\w+) (\w+)", line):
            assert named(match[2], sources[match[1]]), line
        elif match := re.match(r"ros2 service call /(\w+)/(\w+) (\S+)", line):
            said = dict(re.findall(r"\| `~/(\w+)` \| (\S+) \|", gen_reference.messages(ROOT)))
            assert said[match[2]] == match[3].replace("/srv", ""), line


def test_every_page_is_in_the_navigation_and_there():
    written = {page for page in TEXTS if page.startswith("docs/")}
    assert nav_pages() - written == generated()
    assert written <= nav_pages()


def test_reference_is_made_from_the_code():
    pages = dict(gen_reference.pages(ROOT))
    assert {f"docs/{path}" for path in pages} == {page for page in generated() if "/reference/" in page}
    for name in ("sigma", "epsilon", "return_margin", "bundle_folder"):
        assert f"| `{name}` |" in pages["reference/parameters.md"]
    for path in (ROOT / "msg").glob("*.msg"):
        assert f"### {path.stem}\n" in pages["reference/messages.md"]
    assert (
        "| `q_safe_action` | `float64` | the same for the action decided on; NaN: not scored |"
        in (pages["reference/messages.md"])
    )
    assert "| `~/enable` | std_srvs/SetBool | shield_node |" in pages["reference/messages.md"]
    for words, _ in gen_reference.verbs(PARSER):
        assert f"# {' '.join(words)}\n" in pages["reference/command_line.md"]
    assert "| `control_period` | number above 0 | s | yes |" in pages["reference/contract.md"]
    assert "`critic.0.0.weight`" in pages["reference/bundle.md"]
    assert "Traceback" not in "".join(pages.values())
