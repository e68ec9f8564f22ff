"""Nothing executes code from a file: no pickle, eval, exec, torch.load, yaml.load, no pickles of NumPy, no shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(p for folder in ("ltchm_geo", "qgis_plugin") for p in (ROOT / folder).rglob("*.py"))
MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "yaml",
    "code",
    "runpy",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {  # (of what, name); of anything where the first is None
    ("torch", "load"),
    ("jit", "load"),
    ("torch", "compile_from_file"),
    ("os", "system"),
    ("os", "popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    (None, "read_pickle"),
    (None, "load_module"),
    (None, "spec_from_file_location"),
    (None, "load_library"),
}


def offences(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of everything that could run what a file says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        for name in names:
            if name.split(".")[0] in MODULES or name in ("torch.load", "os.system", "os.popen"):
                yield node.lineno, f"import {name}"
        if isinstance(node, ast.Call):
            called = _called(node)
            if called is not None:
                yield node.lineno, called


def _called(node: ast.Call) -> str | None:
    """What a call does that it may not, or None."""
    function = node.func
    if isinstance(function, ast.Name):
        return f"{function.id}()" if function.id in BUILTINS else None
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.attr if isinstance(function.value, ast.Attribute) else getattr(function.value, "id", None)
    if (owner, function.attr) in ATTRIBUTES or (None, function.attr) in ATTRIBUTES:
        return f"{owner}.{function.attr}()"
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if function.attr == "load" and owner in ("np", "numpy"):
        # numpy's default is False, but here it has to be said.
        given = keywords.get("allow_pickle")
        return None if isinstance(given, ast.Constant) and given.value is False else f"{owner}.load()"
    shell = keywords.get("shell")
    if shell is not None and not (isinstance(shell, ast.Constant) and shell.value is False):
        return f"{owner}.{function.attr}(shell=...)"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_code_from_files(path: Path) -> None:
    assert list(offences(ast.parse(path.read_text("utf-8")))) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "from torch import load",
        "torch.jit.load(x)",
        "eval(x)",
        "exec(x)",
        "np.load(x)",
        "np.load(x, allow_pickle=True)",
        "import yaml",
        "__import__(x)",
        "os.system(x)",
        "subprocess.run(x, shell=True)",
        "pd.read_pickle(x)",
    ],
)
def test_each_of_these_would_be_found(text: str) -> None:
    assert list(offences(ast.parse(text)))


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 100
