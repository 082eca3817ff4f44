# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The rules of the house, read from the code: who may import whom, how long a file may be, and what a docstring says."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest


ROOT = Path(__file__).resolve().parents[1]
LIBRARY = "transformers_flamingo"
PACKAGES = {
    LIBRARY: ROOT / LIBRARY,
    "transformers_flamingo_cli": ROOT / "transformers_flamingo_cli",
    "transformers_flamingo_miniature": ROOT / "miniature" / "transformers_flamingo_miniature",
}

# Who may import whom. "files" are the top-level `*_flamingo.py`, which travel with a checkpoint; folders do not. Each may
# import itself. CONTRIBUTING.md draws the table.
MAY_IMPORT = {
    "files": set(),
    "utils": {"files"},
    "data": {"files", "utils"},
    "cards": {"files", "utils"},
    "conversion": {"files", "utils", "cards"},
    "few_shot": {"files", "utils", "data"},
    "evaluation": {"files", "utils", "data", "cards", "few_shot"},
    "training": {"files", "utils", "data", "cards", "evaluation.metrics"},
    "pretraining": {"files", "utils", "data", "cards", "evaluation.metrics", "training"},
}
# Each of these may import all that is above it in the table
for name in ("apps", "cli", "miniature"):
    MAY_IMPORT[name] = set(MAY_IMPORT)
MAX_LINES, MAX_CLASS_LINES = 600, 450

# A docstring of a function says what the function does: "Compute", "Return", "Check", "Load".
NO_VERBS = {
    *(
        "a",
        "all",
        "an",
        "any",
        "as",
        "at",
        "both",
        "by",
        "each",
        "every",
        "for",
        "from",
        "how",
        "in",
        "it",
        "its",
        "no",
        "not",
    ),
    *(
        "of",
        "on",
        "one",
        "ones",
        "only",
        "our",
        "same",
        "some",
        "that",
        "the",
        "their",
        "these",
        "this",
        "those",
        "two",
    ),
    *("what", "when", "where", "whether", "which", "who", "whose", "why", "with", "without", "yes"),
}
# American spelling, as transformers has it.
BRITISH = re.compile(
    r"\w*(?:colour|behaviour|favour|neighbour|honour|labelled|labelling|modelled|modelling|modeller|cancelled|cancelling|"
    r"travelled|travelling|signalled|signalling|centred|centring|catalogue|dialogue|analys(?:e|ed|es|ing)\b)\w*|"
    r"\b(?:artefact\w*|centres?|defence|fulfil|grey\w*|judgement|learnt|licence|misspelt|metres?|practise[ds]?|programme|whilst)\b",
    re.IGNORECASE,
)
# Words in -ise, -isation and so on are spelled with z, but for those that have always had an s.
ENDING = re.compile(r"[a-z]+is(?:e|ed|es|er|ers|ing|ation|ations)\b", re.IGNORECASE)
WITH_S = re.compile(
    r"(?:\b|_)(?:un)?(?:adv|ar|comprom|compr|conc|cru|dev|disgu|enterpr|exerc|expert|no|otherw|\w+w|parad|po|pra|prec|prem|prom|ra|rev|"
    r"r|superv|surpr|w)is",
    re.IGNORECASE,
)


@cache
def modules() -> dict[str, ast.Module]:
    """Return all modules by dotted name, parsed."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
            found[name].path = path
    return found


def room(module: str) -> str:
    """Return the key of `MAY_IMPORT` for a module."""
    package, *parts = module.split(".")
    if package != LIBRARY:
        return package.removeprefix(f"{LIBRARY}_")
    if not parts:
        return "package"
    return "files" if parts[0].endswith("_flamingo") else parts[0]


def imports(module: str) -> Iterator[tuple[str, ast.stmt]]:
    """Yield what a module imports of the three packages, inside functions too: dotted names of modules."""
    tree = modules()[module]
    is_package = tree.path.name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            targets = [name if name in modules() else base for name in names]
        elif isinstance(node, ast.Call) and "import" in ast.unparse(
            node.func
        ):  # `importlib.import_module`, `__import__`
            targets = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        else:
            continue
        for target in targets:
            if target.split(".")[0] in PACKAGES:
                yield target, node


def allowed(module: str, target: str) -> bool:
    """Tell whether a module may import another."""
    source, goal = room(module), room(target)
    if source == "package":  # `__init__.py` of the library
        return goal in ("files", "utils", "cards", "few_shot")
    if goal == "package":  # its public names are those of the files
        return "files" in MAY_IMPORT[source]
    inside = target.removeprefix(f"{LIBRARY}.")
    return goal == source or any(
        inside == name or goal == name or inside.startswith(f"{name}.") for name in MAY_IMPORT[source]
    )


def test_the_table_is_that_of_the_folders():
    folders = {path.name for path in (ROOT / LIBRARY).iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == MAY_IMPORT.keys() - {"files", "cli", "miniature"}


def test_imports_run_one_way():
    wrong = [
        f"{module} imports {target} (line {node.lineno})"
        for module in modules()
        for target, node in imports(module)
        if not allowed(module, target)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_is_circular():
    graph = {module: {target for target, _ in imports(module) if target != module} for module in modules()}
    # An import of a submodule runs the package's `__init__` too, which may name its own submodules.
    graph = {module: {t for t in targets if not module.startswith(f"{t}.")} for module, targets in graph.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_files_that_travel_import_their_siblings_alone():
    """transformers copies what `from .sibling import name` reaches, and no other form, with a checkpoint."""
    for module in modules():
        if room(module) == "files":
            for target, node in imports(module):
                assert isinstance(node, ast.ImportFrom), (module, node.lineno)
                assert node.level == 1, (module, node.lineno)
                assert node.module is not None, (module, node.lineno)
                assert room(target) == "files", (module, target)


@pytest.mark.parametrize("module", sorted(modules()))
def test_files_and_classes_are_short(module):
    tree = modules()[module]
    assert len(tree.path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno + 1 <= MAX_CLASS_LINES, node.name


def definitions(scope: ast.AST, prefix: str = "", is_public: bool = True) -> Iterator[tuple[str, ast.AST, bool]]:
    """Yield the definitions of a module and of its classes, under conditions too: a name, the node, and whether it is public."""
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name, public = f"{prefix}{node.name}", is_public and not node.name.startswith("_")
            yield name, node, public
            if isinstance(node, ast.ClassDef):
                yield from definitions(node, f"{name}.", public)
        elif not isinstance(node, ast.expr):
            yield from definitions(node, prefix, is_public)


@pytest.mark.parametrize("module", sorted(modules()))
def test_docstrings_say_what_a_definition_does(module):
    tree = modules()[module]
    assert ast.get_docstring(tree), "the module has no docstring"
    for name, node, is_public in definitions(tree):
        text = ast.get_docstring(node)
        if any(isinstance(d, ast.Attribute) and d.attr == "setter" for d in getattr(node, "decorator_list", [])):
            continue  # its property has the docstring
        assert text or not is_public, f"{name} (line {node.lineno}) has no docstring"
        if text and not isinstance(node, ast.ClassDef):
            first = re.split(r"\W", text.lstrip("`[\"'"), maxsplit=1)[0].lower()
            assert first and first not in NO_VERBS, (
                f"{name} (line {node.lineno}) does not begin with a verb: {text[:60]!r}"
            )


def test_spelling_is_american():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    wrong = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if (
            path.suffix not in (".py", ".md", ".yaml", ".yml", ".toml", ".txt")
            or name == "tests/test_house.py"
            or not path.is_file()
        ):
            continue
        if name.startswith("tests/golden"):
            continue  # files of others
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            line = line.replace("was_cancelled", "")  # a field of the files of Label Studio
            words = [*BRITISH.findall(line), *(word for word in ENDING.findall(line) if not WITH_S.match(word))]
            wrong += [f"{name}:{number}: {word}" for word in words]
    assert not wrong, "\n".join(wrong)
