"""What the Markdown pages name is there. Needs neither the program nor a build."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import api_page
import pytest
from docpages import Page, manual, pages, read
from harness import REPOSITORY

MAX_README = 150  # lines; what does not fit belongs into docs/
PAGES = pages()
MANUAL = manual()
# Folders of the repository whose files the pages name.
PATH = re.compile(r"^(?:src|tests|scripts|docs|fuzz|findings|contrib)/[\w./*-]*$")
TEST = re.compile(r"^(?:test_)?\w+\.py$")
PLACEHOLDERS = {"NAME", "TARGET", "FILE"}  # in `findings/NAME.sh`
ORIGINAL = {"test_webdataset.py"}  # a script of the converter that people come from
MADE = ("fuzz/artifacts/",)  # by tools, so not in the repository


def names(page: Page) -> list[str]:
    """What the code spans of a page name: first words, without arguments."""
    return [span.split()[0] for span in page.code() if span.split()]


def by_name(page: Page) -> str:
    """For the names of parametrised tests."""
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_links(page: Page) -> None:
    """Every relative link leads to a file of the repository, and to a heading of it if it says so."""
    wrong = []
    for target in page.links():
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.path.parent / path).resolve() if path else page.path
        if not file.is_relative_to(REPOSITORY) or not file.exists():
            wrong.append(f"{target}: there is no such file")
        elif anchor and anchor not in read(file).anchors():
            wrong.append(f"{target}: there is no such heading")
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=by_name)
def test_paths(page: Page) -> None:
    """Every path in a code span is there."""
    wrong = []
    for name in names(page):
        path = name.partition("::")[0]
        if not PATH.match(path) or path.startswith(MADE) or PLACEHOLDERS & set(re.split(r"\W", path)):
            continue
        if not any(REPOSITORY.glob(path.rstrip("/"))):
            wrong.append(path)
    assert wrong == []


@pytest.mark.parametrize("page", MANUAL, ids=by_name)
def test_tests(page: Page) -> None:
    """Every test that a page names is there: the file, and the function."""
    wrong = []
    for name in names(page):
        path, _, function = name.partition("::")
        if (
            path in ORIGINAL
            or not TEST.match(path)
            or (not path.startswith("test_") and page.name != "docs/promises.md")
        ):
            continue
        file = REPOSITORY / "tests" / "python" / path
        if not file.is_file() or (function and f"def {function}(" not in file.read_text(encoding="utf-8")):
            wrong.append(name)
    assert wrong == []


def test_every_promise_has_a_test() -> None:
    """Each row of the tables "promise | shown by" names a test, a module of the tests, or a test in Rust."""
    rows = 0
    table: list[str] | None = None
    for line in (REPOSITORY / "docs" / "promises.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            table = None
        elif table is None:
            table = cells
        elif table == ["promise", "shown by"] and not line.startswith("|---"):
            rows += 1
            assert len(cells) == 2 and re.search(r"`(tests/\w+\.rs|src/\S+\.rs|test_\w+\.py)", cells[1]), line
    assert rows > 40


def test_the_readme_is_short() -> None:
    """Three screens, so that who only wants to use it finds how."""
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README, f"{len(lines)} lines; what users need later belongs into docs/"


def test_the_readme_in_chinese() -> None:
    """It has the whole way, and the two lead to each other."""
    chinese = read(REPOSITORY / "README.zh-CN.md")
    assert {"安装", "快速开始", "迁移", "配置", "常见问题", "性能", "回滚"} <= chinese.anchors()
    assert {"docs/flow.svg", "README.md"} <= set(chinese.links())
    assert {"docs/flow.svg", "README.zh-CN.md"} <= set(read(REPOSITORY / "README.md").links())


def test_the_readme_leads_to_every_page() -> None:
    """A page that nothing leads to is not read."""
    linked = {target.partition("#")[0] for target in read(REPOSITORY / "README.md").links()}
    wanted = {page.name for page in MANUAL if page.name != "README.md"} | {"CONTRIBUTING.md", "CHANGELOG.md"}
    assert wanted - linked == set()


@pytest.mark.parametrize("page", MANUAL, ids=by_name)
def test_python(page: Page) -> None:
    """Python in the pages compiles, and what it imports from the loader is there."""
    loader = ast.parse((REPOSITORY / "scripts" / "ctreport_webdataset.py").read_text(encoding="utf-8"))
    offered = {
        "ctreport_webdataset": {n.name for n in loader.body if isinstance(n, ast.ClassDef | ast.FunctionDef)},
        "ctwds": set(api_page.offered(api_page.parsed("__init__"))),
    }
    for block in page.blocks:
        if block.language != "python":
            continue
        tree = ast.parse("\n".join(block.lines), f"{page.name}, line {block.line}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module in offered:
                assert {alias.name for alias in node.names} - offered[node.module] == set()


def test_blocks_name_their_language() -> None:
    """A block that says `sh` is run by test_docs_commands.py, those that say `toml` and `yaml` are read by
    test_dataset_file.py and test_config.py; one with commands and without it would not be run."""
    wrong = []
    for page in MANUAL:
        for block in page.blocks:
            shown = any(re.match(r"\$? ?(ctwds-fs|scripts/|cargo) ?", line) for line in block.lines)
            if (shown and block.language != "sh") or block.language not in {"sh", "toml", "yaml", "python", "text", ""}:
                wrong.append(f"{page.name}, line {block.line}")
    assert wrong == []


def test_the_reader_of_pages(tmp_path: Path) -> None:
    """The checks above see what they should see."""
    path = tmp_path / "page.md"
    path.write_text(
        "# One `two`, three\n[a](b.md#c) `[d](e)` and ``f``\n```sh\n# no\na \\\n  b # c\n\n[x](y)\n```\n## ÷ & more\n",
        encoding="utf-8",
    )
    page = read(path)
    assert page.links() == ["b.md#c"] and page.code() == ["two", "[d](e)"]
    assert page.anchors() == {"one-two-three", "--more"}
    assert list(page.blocks[0].commands()) == ["a   b # c", "[x](y)"]
