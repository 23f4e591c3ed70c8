"""Makes docs/api.md of the docstrings of the package: what `ctwds.__all__` names, and nothing else. Only reads the
sources, so that it needs neither the extension nor PyTorch.

    python3 scripts/api_page.py           # writes it
    python3 scripts/api_page.py --check   # exit code 1 if it is not what would be written
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "python" / "ctwds"
TARGET = ROOT / "docs" / "api.md"
WIDTH = 120

HEAD = """\
# The Python package

<!-- Made of the docstrings by scripts/api_page.py: change those. -->

"""

# Chapters that are the docstrings of modules, without their first paragraphs.
CHAPTERS = {"Samples, batches and their order": "shard_dataset"}

Definition = ast.ClassDef | ast.FunctionDef


def parsed(module: str) -> ast.Module:
    """A module of the package, or the stub of the extension."""
    path = next(path for suffix in ("py", "pyi") if (path := PACKAGE / f"{module}.{suffix}").exists())
    return ast.parse(path.read_text(encoding="utf-8"))


def homes(package: ast.Module) -> dict[str, str]:
    """The names that the package imports from its modules, with these."""
    imports = [
        node for node in ast.walk(package) if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module
    ]
    return {alias.asname or alias.name: str(node.module) for node in imports for alias in node.names}


def offered(package: ast.Module) -> list[str]:
    """What `__all__` names, also where some package is installed."""
    names: list[str] = []
    for node in ast.walk(package):
        target = (
            node.targets[0]
            if isinstance(node, ast.Assign)
            else node.target
            if isinstance(node, ast.AugAssign)
            else None
        )
        if isinstance(node, ast.Assign | ast.AugAssign) and target and ast.unparse(target) == "__all__":
            names += [str(name) for name in ast.literal_eval(node.value)]
    if not names:
        raise SystemExit(f"{PACKAGE}: no __all__")
    return sorted(names)


def definition(module: str, name: str) -> tuple[str, Definition] | None:
    """The class or function of this name in a module, or in the one that it imports it from; none if it is neither."""
    tree = parsed(module)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
    further = homes(tree).get(name)
    return definition(further, name) if further else None


def doc_of(node: ast.Module | Definition, what: str) -> str:
    """A docstring as it is written."""
    doc = ast.get_docstring(node)
    if not doc:
        raise SystemExit(f"{what}: no docstring")
    return inspect.cleandoc(doc)


def signature(node: ast.FunctionDef, name: str, is_method: bool) -> str:
    """A call: one line, or one parameter in each."""
    given = parameters(node.args)
    if is_method and name != "__init__" and not any(ast.unparse(one) == "staticmethod" for one in node.decorator_list):
        given.pop(0)
    result = "" if node.returns is None or node.name == "__init__" else f" -> {ast.unparse(node.returns)}"
    line = f"{name}({', '.join(given)}){result}"
    if len(line) <= WIDTH - len("def : ..."):
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in given), f"){result}"])


def parameters(arguments: ast.arguments) -> list[str]:
    """Parameters one by one, as a formatter writes them."""

    def shown(one: ast.arg, default: ast.expr | None, stars: str = "") -> str:
        kind = f": {ast.unparse(one.annotation)}" if one.annotation else ""
        value = "" if default is None else f" = {ast.unparse(default)}" if kind else f"={ast.unparse(default)}"
        return stars + one.arg + kind + value

    places = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(places) - len(arguments.defaults)) + list(arguments.defaults)
    found = [shown(*pair) for pair in zip(places, defaults, strict=True)]
    if arguments.posonlyargs:
        found.insert(len(arguments.posonlyargs), "/")
    if arguments.vararg:
        found.append(shown(arguments.vararg, None, "*"))
    elif arguments.kwonlyargs:
        found.append("*")
    found += [shown(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [*found, *([shown(arguments.kwarg, None, "**")] if arguments.kwarg else [])]


def members(module: str, node: ast.ClassDef, public: set[str]) -> Iterator[ast.FunctionDef | ast.AnnAssign]:
    """The public methods and fields of a class, with those of bases that are not public themselves."""
    seen: set[str] = set()
    todo = [(module, node)]
    while todo:
        module, node = todo.pop(0)
        is_record = any("dataclass" in ast.unparse(one) for one in node.decorator_list) or is_tuple(node)
        for one in node.body:
            name = one.name if isinstance(one, ast.FunctionDef) else ""
            if is_record and isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
                name = one.target.id
            if name and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield one  # type: ignore[misc] # one of the two, as it has a name
        for base in node.bases:
            name = ast.unparse(base).partition("[")[0]
            found = definition(module, name) if name not in public else None
            if found and isinstance(found[1], ast.ClassDef):
                todo.append((found[0], found[1]))


def is_tuple(node: ast.ClassDef) -> bool:
    """Whether it is a NamedTuple, whose annotations are its fields."""
    return any(ast.unparse(base).endswith("NamedTuple") for base in node.bases)


def constructor(module: str, node: ast.ClassDef) -> ast.FunctionDef | None:
    """What makes an instance: the class's own `__init__`, or that of a base in the package."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "__init__":
            return one
    for base in node.bases:
        found = definition(module, ast.unparse(base).partition("[")[0])
        if found and isinstance(found[1], ast.ClassDef) and (made := constructor(found[0], found[1])):
            return made
    return None


def block(text: str) -> str:
    """Python that is shown."""
    return f"```python\n{text}\n```\n\n"


def entry(name: str, module: str, node: Definition, public: set[str]) -> str:
    """The section of a name."""
    if isinstance(node, ast.FunctionDef):
        call = signature(node, name, is_method=False)
        return f"## {name}\n\n{block(f'def {call}: ...')}{doc_of(node, name)}\n\n"
    text, made = f"## {name}\n\n", constructor(module, node)
    body = "..." if made is None else f"def {signature(made, '__init__', is_method=True)}: ..."
    text += block(f"class {name}:\n{textwrap.indent(body, '    ')}")
    text += f"{doc_of(node, name)}\n\n"
    for one in members(module, node, public):
        if isinstance(one, ast.AnnAssign):
            text += f"- `{ast.unparse(one)}`\n"
            continue
        is_property = any(ast.unparse(decorator) == "property" for decorator in one.decorator_list)
        returns = ast.unparse(one.returns) if one.returns else "Any"
        shown = f"{one.name}: {returns}" if is_property else signature(one, one.name, is_method=True)
        text += f"### {name}.{one.name}\n\n{block(shown if is_property else f'def {shown}: ...')}"
        text += f"{doc_of(one, f'{name}.{one.name}')}\n\n"
    return text


def made() -> str:
    """The text of the page."""
    package = parsed("__init__")
    home, names = homes(package), offered(package)
    text, errors = HEAD + doc_of(package, "ctwds") + "\n\n", ""
    for title, module in CHAPTERS.items():
        _, _, chapter = doc_of(parsed(module), module).partition("\n\n")
        text += f"## {title}\n\n{chapter}\n\n"
    for name in names:
        found = definition(home[name], name) if name in home else None
        if found is None:
            continue  # a constant, or a type
        section = entry(name, *found, set(names))
        if isinstance(found[1], ast.ClassDef) and found[0] == "errors":
            errors += section
        else:
            text += section
    lines = [
        textwrap.dedent(line).rstrip() if not line.strip() else line.rstrip() for line in (text + errors).splitlines()
    ]
    return "\n".join(lines).strip() + "\n"


def main() -> int:
    """Write the page, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the page is not current")
    text = made()
    if not parser.parse_args().check:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
        print(f"{TARGET}: not what the docstrings of {PACKAGE} make: run scripts/api_page.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
