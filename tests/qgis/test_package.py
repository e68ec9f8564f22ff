"""What is shipped: metadata, translations, imports, the zip."""

from __future__ import annotations

import ast
import configparser
import re
import sys
import zipfile
from pathlib import Path

import package
import pytest
import translate
from conftest import PLUGINS, ROOT

PLUGIN = PLUGINS / "ltchm_qgis"
MODULES = sorted(PLUGIN.rglob("*.py"))


def metadata() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return parser["general"]


def test_metadata_is_complete() -> None:
    found = metadata()
    for key in (
        *("name", "qgisMinimumVersion", "qgisMaximumVersion", "supportsQt6", "description", "about", "version"),
        *("author", "email", "homepage", "repository", "tracker", "icon", "category", "tags", "changelog", "license"),
    ):
        assert found[key], key
    assert (PLUGIN / found["icon"]).exists()
    assert found["hasProcessingProvider"] == "yes"
    assert (found["qgisMinimumVersion"], found["qgisMaximumVersion"]) == ("3.22", "4.99")
    version = re.search(r'"(.+)"', (ROOT / "ltchm_geo" / "version.py").read_text().split("__version__")[1]).group(1)
    assert found["version"] == version


def test_the_zip_holds_one_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(package.build(tmp_path)) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names} == {"ltchm_qgis"}
    assert {"ltchm_qgis/metadata.txt", "ltchm_qgis/LICENSE", "ltchm_qgis/i18n/ltchm_zh.qm"} <= set(names)
    assert not [name for name in names if name.endswith((".pyc", ".ts"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_only_qgis_qt_and_the_standard_library(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bPyQt[56]\b|\bexec_\(", text)
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        for name in names:
            assert name.split(".")[0] in {*sys.stdlib_module_names, "qgis", "processing"}, name


def test_qt_enums_are_scoped() -> None:
    """PyQt6 knows Qt.AlignmentFlag.AlignLeft, not Qt.AlignLeft."""
    for path in MODULES:
        assert not re.search(r"\bQt\.[A-Z]\w+\b(?!\.)", path.read_text(encoding="utf-8")), path


@pytest.mark.parametrize("language", list(translate.LANGUAGES))
def test_translations_are_complete(language: str) -> None:
    known = translate.read(language)
    assert list(known) == translate.collect(), "run python qgis_plugin/translate.py"
    for source, text in known.items():
        assert text, source
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", source)), source


@pytest.mark.parametrize("locale", ["zh_CN", "zh", "en_US"])
def test_compiled_translations_are_those(qgis_app, locale: str) -> None:
    from ltchm_qgis import translation
    from qgis.PyQt.QtCore import QCoreApplication

    translator = translation.install(locale)
    assert translator is not None
    try:
        for source, text in translate.read(locale[:2]).items():
            assert translation.tr(source) == text
    finally:
        QCoreApplication.removeTranslator(translator)


def test_a_language_without_translation_is_english(qgis_app) -> None:
    from ltchm_qgis import translation

    assert translation.install("xx_YY") is None
    assert translation.tr("Compress layer") == "Compress layer"
