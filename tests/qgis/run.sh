#!/bin/sh
# Test the QGIS plugin with a real QGIS and no screen. QGIS comes from Debian, backports where the system has them; it is
# installed (by root, 2.6 GB) only where CI=true or LTCHM_INSTALL_QGIS=1 says so. The engine is LTCHM_PYTHON, else .venv.
set -eu
cd "$(dirname "$0")/../.."

add_backports() {  # next to the sources that are configured, wherever they point
    . /etc/os-release
    suite="$VERSION_CODENAME-backports"
    grep -rqs "$suite" /etc/apt/sources.list /etc/apt/sources.list.d && return
    if [ -f /etc/apt/sources.list.d/debian.sources ]; then
        awk -v RS= -v ORS='\n\n' "/Suites:.*$VERSION_CODENAME-updates/" /etc/apt/sources.list.d/debian.sources |
            sed "s/^Suites:.*/Suites: $suite/" > "/etc/apt/sources.list.d/$suite.sources"
    else
        sed -n "s/^\(deb .*\) $VERSION_CODENAME main.*/\1 $suite main/p" /etc/apt/sources.list \
            > "/etc/apt/sources.list.d/$suite.list"
    fi
}

if ! /usr/bin/python3 -c "import qgis.core" 2> /dev/null; then
    if [ "$(id -u)" != 0 ] || { [ "${CI:-}" != true ] && [ "${LTCHM_INSTALL_QGIS:-}" != 1 ]; }; then
        echo "skipped: QGIS is not installed. As root, LTCHM_INSTALL_QGIS=1 sh tests/qgis/run.sh installs it."
        exit 0
    fi
    export DEBIAN_FRONTEND=noninteractive
    add_backports
    apt-get update -qq
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME-backports")
    apt-get install -y -qq --no-install-recommends -t "$suite" qgis python3-qgis python3-gdal
    apt-get install -y -qq --no-install-recommends python3-venv python3-pip
fi

if [ ! -x .venv-qgis/bin/pytest ]; then
    /usr/bin/python3 -m venv --system-site-packages .venv-qgis
    .venv-qgis/bin/pip install --quiet --disable-pip-version-check --upgrade "pytest>=8" "pytest-qgis==5.0.2" attrs
fi
QT_QPA_PLATFORM=offscreen exec .venv-qgis/bin/python -m pytest -q -c tests/qgis/pytest.ini tests/qgis --durations=5 "$@"
