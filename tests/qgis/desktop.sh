#!/bin/sh
# Drive a real QGIS with the plugin on a virtual screen and keep pictures of it: sh tests/qgis/desktop.sh FOLDER
# Needs qgis, xvfb-run and an engine (LTCHM_PYTHON, or the .venv of the repository).
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
profiles=$(mktemp -d -t ltchm.XXXXXX)
trap 'rm -rf "$profiles"' EXIT
mkdir -p "$profiles/profiles/default/python/plugins" "$profiles/profiles/default/QGIS"
ln -s "$root/qgis_plugin/ltchm_qgis" "$profiles/profiles/default/python/plugins/ltchm_qgis"
cat > "$profiles/profiles/default/QGIS/QGIS3.ini" <<INI
[PythonPlugins]
ltchm_qgis=true
processing=true
[locale]
overrideFlag=true
userLocale=${LTCHM_LOCALE:-en_US}
globalLocale=${LTCHM_LOCALE:-en_US}
[app]
projections\\promptWhenMultipleTransformsExist=false
[qgis]
askToSaveMemoryLayers=false
checkVersion=false
INI
export LTCHM_PYTHON="${LTCHM_PYTHON:-$root/.venv/bin/python}" DRIVE_OUT="$out" DRIVE_ROOT="$root" DRIVE_WORK="$profiles"
unset QT_QPA_PLATFORM
status=0
QT_LOGGING_RULES='*.debug=false' timeout 900 xvfb-run -a -s "-screen 0 1400x900x24" \
    qgis --profiles-path "$profiles" --nologo --noversioncheck --skipbadlayers --code "$root/tests/qgis/drive_desktop.py" \
    > "$out/qgis.log" 2>&1 || status=$?
cat "$out/report.txt" || true
if [ "$status" -ge 128 ]; then
    echo "QGIS crashed (exit status $status): see $out/qgis.log" >&2
    exit 1
fi
grep -q '^done$' "$out/report.txt"
