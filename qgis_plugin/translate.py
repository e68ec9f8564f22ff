"""Bring the translations up to date: `python qgis_plugin/translate.py`.

Collects every `tr("...")` of the plugin into i18n/ltchm_LANGUAGE.ts, keeps the translations that are there, drops those
no longer used, and makes the .qm files that QGIS loads where Qt's `lrelease` is installed.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

__all__ = ["LANGUAGES", "PLUGIN", "collect", "read"]

PLUGIN = Path(__file__).parent / "ltchm_qgis"
LANGUAGES = {"en": "en_US", "zh": "zh_CN"}
_CONTEXT = "LTCHM"


def collect(folder: Path = PLUGIN) -> list[str]:
    """Texts given to `tr` in all modules, in order of appearance.

    Raises
    ------
    ValueError
        A text that is not one literal: it could not be looked up.
    """
    found: dict[str, None] = {}
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tr":
                (text,) = node.args
                if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
                    raise ValueError(f"{path}, line {node.lineno}: tr() needs one literal text")
                found[text.value] = None
    return list(found)


def read(language: str) -> dict[str, str]:
    """Translations there are, by English text."""
    path = PLUGIN / "i18n" / f"ltchm_{language}.ts"
    if not path.exists():
        return {}
    messages = ET.parse(path).iter("message")
    return {m.findtext("source", ""): m.findtext("translation", "") for m in messages}


def write(language: str, texts: list[str], known: dict[str, str]) -> Path:
    """Write a .ts file; texts without a translation are marked unfinished (English is its own translation)."""
    root = ET.Element("TS", version="2.1", language=LANGUAGES[language], sourcelanguage="en")
    context = ET.SubElement(root, "context")
    ET.SubElement(context, "name").text = _CONTEXT
    for text in texts:
        message = ET.SubElement(context, "message")
        ET.SubElement(message, "source").text = text
        translation = ET.SubElement(message, "translation")
        translation.text = known.get(text, text if language == "en" else "")
        if not translation.text:
            translation.set("type", "unfinished")
    ET.indent(root)
    path = PLUGIN / "i18n" / f"ltchm_{language}.ts"
    body = ET.tostring(root, encoding="unicode")
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<!DOCTYPE TS>\n{body}\n', encoding="utf-8")
    return path


def main() -> int:
    """Update all languages; 1 if something is untranslated."""
    texts, missing = collect(), 0
    lrelease = shutil.which("lrelease") or shutil.which("lrelease-qt5") or shutil.which("lrelease6")
    for language in LANGUAGES:
        known = {} if language == "en" else read(language)
        path = write(language, texts, known)
        without = [text for text in texts if language != "en" and not known.get(text)]
        missing += len(without)
        print(f"{path.name}: {len(texts)} texts, {len(without)} without translation")
        if lrelease:
            subprocess.run([lrelease, "-silent", str(path), "-qm", str(path.with_suffix(".qm"))], check=True)
    if not lrelease:
        print("lrelease is not installed (Debian: qttools5-dev-tools): the .qm files stay as they are")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
