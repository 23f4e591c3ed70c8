"""The package as its users see it: what is offered, documented, typed, and imported without PyTorch."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import api_page
from harness import REPOSITORY, Program

PACKAGE = REPOSITORY / "python" / "ctwds"
DEADLINE = 120  # seconds; a type checker without its cache takes 20

USER = """\
from collections.abc import Iterator

import ctwds
import torch
from ctwds import CTReportDataset, CTReportLoader, CTReportWebDataset, EpochSampler, LoaderError

version: str = ctwds.__version__


def volumes(folder: str) -> Iterator[torch.Tensor]:
    data = CTReportWebDataset(folder, dtype=torch.float16, shape=(8, 8, 8))
    loader: CTReportLoader = data.make_loader(batch_size=2, num_workers=0)
    for batch in loader:
        yield batch[0]


def ids(folder: str) -> list[str]:
    data = CTReportDataset(folder, mode="val")
    try:
        volume, text, labels, study, embedding = data[0]
        assert isinstance(text, str) and volume.ndim == 4 and labels.ndim == 1 and embedding.numel() == 0
    except LoaderError as error:
        raise SystemExit(str(error)) from error
    return [study for _ in EpochSampler(data)]
"""
# What a user may get wrong, and the checker has to say.
WRONG = {
    "ctwds.CTReportDatasett": "no attribute",
    "ctwds.CTReportWebDataset('x', shuffel=True)": "Unexpected keyword argument",
    "ctwds.CTReportWebDataset('x', buffer_size='4')": "incompatible type",
    "len(ctwds.__version__) + 'x'": "Unsupported operand",
}


def offered() -> list[str]:
    """What `__all__` names where all packages are installed."""
    return api_page.offered(api_page.parsed("__init__"))


def python(code: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Python with the package of the clone, whose extension must have been built."""
    assert list(PACKAGE.glob("_native*.so")), "the extension is not there: scripts/extension.sh builds it"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "python")}
    command = [sys.executable, *more, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False)


def test_the_page_is_current() -> None:
    """docs/api.md is what the docstrings make, and every public name has one."""
    command = [sys.executable, str(REPOSITORY / "scripts" / "api_page.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    page = (REPOSITORY / "docs" / "api.md").read_text(encoding="utf-8")
    assert [name for name in offered() if name != "__version__" and f"\n## {name}\n" not in page] == []


def test_every_name_is_there() -> None:
    """With PyTorch, all of `__all__`; another name is an AttributeError; `dir` shows them before they are used."""
    done = python(
        "import ctwds\n"
        "assert set(ctwds.__all__) <= set(dir(ctwds))\n"
        "for name in ctwds.__all__: assert getattr(ctwds, name)\n"
        "assert not hasattr(ctwds, 'CTReportDatasett')\n"
        "from ctwds import *\n"
        "assert issubclass(LoaderError, Error) and issubclass(LengthUnknown, TypeError)\n"
    )
    assert done.returncode == 0, done.stderr


def test_without_torch() -> None:
    """The package is imported, and what makes tensors says what to install, by each way to ask for it."""
    done = python(
        "import sys; sys.modules['torch'] = None\n"
        "import ctwds\n"
        "assert 'yaml' not in sys.modules\n"
        "from ctwds import *\n"
        "assert load and Volumes\n"
        "for ask in (lambda: ctwds.CTReportDataset, lambda: exec('from ctwds import CTReportWebDataset')):\n"
        "    try: ask()\n"
        "    except ctwds.PackageMissing as error: print(isinstance(error, ImportError), error)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True ctwds.CTReport") == 2 and done.stdout.count("pip install torch") == 2


def test_without_lightning() -> None:
    """Its class is not offered, and says what to install where it is asked for."""
    done = python(
        "import sys; sys.modules['lightning'] = sys.modules['pytorch_lightning'] = None\n"
        "import ctwds\n"
        "assert 'DataModule' not in ctwds.__all__\n"
        "from ctwds import *\n"
        "try: ctwds.DataModule\n"
        "except ctwds.PackageMissing as error: print(isinstance(error, ImportError), error)\n"
    )
    assert done.stdout == "True ctwds.DataModule is for Lightning, which is not installed: pip install lightning\n", (
        done
    )


def test_with_half_a_lightning(tmp_path: Path) -> None:
    """Where Lightning lacks a package itself, the error is of that one."""
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "pytorch.py").write_text("import torchmetrics_that_is_missing\n")
    done = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ctwds; ctwds.DataModule")
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'torchmetrics_that_is_missing'\n"), done


def test_importing_is_light() -> None:
    """PyTorch, which takes a second, is not imported before it is needed."""
    done = python("import sys, ctwds\nprint(sorted({'torch', 'yaml', 'webdataset'} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_one_version(program: Program) -> None:
    """Of the package, the program, and Cargo.toml."""
    cargo = tomllib.loads((REPOSITORY / "Cargo.toml").read_text(encoding="utf-8"))
    version = cargo["workspace"]["package"]["version"]
    assert program.run("--version").stdout == f"ctwds-fs {version}\n"
    assert python("import ctwds; print(ctwds.__version__)").stdout == f"{version}\n"
    for path in ("Cargo.toml", "python/Cargo.toml"):
        package = tomllib.loads((REPOSITORY / path).read_text(encoding="utf-8"))["package"]
        assert package["version"] == {"workspace": True}


def checked(path: Path) -> str:
    """What a strict type checker says of a user's file, in a project of its own."""
    environment = os.environ | {"MYPYPATH": str(REPOSITORY / "python")}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(path.parent / "cache")]
    done = subprocess.run(
        [*command, "--python-version=3.11", "--follow-imports=silent", str(path)],
        env=environment,
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_types(tmp_path: Path) -> None:
    """A user's code passes, and each fault of it is found."""
    assert (PACKAGE / "py.typed").exists()
    right = tmp_path / "right.py"
    right.write_text(USER, encoding="utf-8")
    assert "Success" in checked(right), checked(right)
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import ctwds\n" + "".join(f"{line}\n" for line in WRONG), encoding="utf-8")
    said = checked(wrong).splitlines()
    for number, expected in enumerate(WRONG.values(), start=2):
        assert any(f"wrong.py:{number}: error" in line and expected in line for line in said), said
