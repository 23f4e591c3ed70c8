"""The package's modules, and the one file that is made of them for those who copy."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import REPOSITORY

PACKAGE = REPOSITORY / "python" / "ctwds"
MODULES = sorted(PACKAGE.glob("*.py"))
MAX_MODULE, MAX_FUNCTION = 400, 70  # lines, as tests/tidy has them for Rust


def check(clone: Path) -> subprocess.CompletedProcess[str]:
    """What the generator of a clone says of its file."""
    command = [sys.executable, str(clone / "scripts" / "standalone.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_file_is_current() -> None:
    """The committed file is the one that the modules make."""
    done = check(REPOSITORY)
    assert done.returncode == 0, done.stderr


def test_a_changed_module_is_noticed(tmp_path: Path) -> None:
    """A module that says something else, and a name that two modules define."""
    (tmp_path / "scripts").mkdir()
    for name in ("standalone.py", "ctreport_webdataset.py"):
        shutil.copy(REPOSITORY / "scripts" / name, tmp_path / "scripts")
    shutil.copytree(PACKAGE, tmp_path / "python" / "ctwds", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    assert check(tmp_path).returncode == 0
    module = tmp_path / "python" / "ctwds" / "spacing.py"
    before = module.read_text(encoding="utf-8")
    module.write_text(before.replace("1e-6", "1e-5"), encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode == 1 and "run scripts/standalone.py" in done.stderr
    module.write_text(before + "\n\ndef level() -> None:\n    pass\n", encoding="utf-8")
    done = check(tmp_path)
    assert done.returncode == 1 and "both define level" in done.stderr


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_modules_are_small(path: Path) -> None:
    """A file that nobody reads to its end, and a function that does not fit a screen, are split."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_MODULE
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    long = {
        node.name: lines for node in functions if (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION
    }
    assert long == {}
