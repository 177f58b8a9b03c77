# shellcheck shell=bash
# Shared by scripts/test, scripts/check and scripts/demo (sourced by bash, with the current folder at the top of the checkout):
# finding a Python, Debian packages, virtual environments, and the linters. Nothing here asks a question or needs a terminal.

# Other users run what we install here, whatever the caller's umask; and his own Python settings must not reach in.
umask 022
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP

PYTHON_FLOOR=311
# --isolated, that is without the settings of pip, is not used: they may hold the proxy that leads out.
PIP_QUIET=(-qq --disable-pip-version-check --no-input)

say() { printf '== %s\n' "$*" >&2; }
loud() { printf '\n!! %s\n\n' "$*" >&2; }
die() { loud "$*"; exit 1; }

# as_root CMD...: as root, or through a sudo that asks nothing; status 126 where neither is there.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif sudo -n true 2>/dev/null; then sudo -n -- "$@"
    else return 126
    fi
}

# python_version PYTHON: prints 311, 313, …; fails if this is no CPython with its usual lock.
python_version() {
    "$1" -I -c 'import sys, sysconfig
if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"): sys.exit(1)
print("%d%02d" % sys.version_info[:2])' 2>/dev/null
}

# The system's Python comes first: one below somebody's home cannot be run by the other users whom the tests play.
find_python() {
    local found version
    for found in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
        found=$(command -v "$found") || continue
        version=$(python_version "$found") || continue
        if [ "$version" -ge $PYTHON_FLOOR ]; then echo "$found"; return; fi
    done
    return 1
}

# Every other Python that may be on this machine, a line each.
other_pythons() {
    local minor
    for minor in 19 18 17 16 15 14 13; do
        type -ap "python3.$minor" || true
    done
    ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python3 "$HOME"/.local/share/uv/python/cpython-3.*/bin/python3 \
        /usr/local/bin/python3 /opt/python*/bin/python3 2>/dev/null || true
}

# newest_python NOT: the newest Python from 3.13 on that is not version NOT; fails if there is none.
newest_python() {
    local found version best='' best_version=312
    while read -r found; do
        version=$(python_version "$found") || continue
        if [ "$version" -gt "$best_version" ] && [ "$version" != "$1" ] && "$found" -I -c 'import ensurepip, venv' 2>/dev/null; then
            best=$found best_version=$version
        fi
    done < <(other_pythons)
    [ -n "$best" ] || return 1
    "$best" -I -c 'import os, sys; print(os.path.realpath(sys.executable))'
}

# debian_missing PACKAGE...: prints those that are not installed.
debian_missing() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

# debian_install PACKAGE...: installs what is missing, if anything; fails, having said so, where it may not or cannot.
debian_install() {
    local missing package apt=(as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    command -v dpkg-query >/dev/null || { loud "This is no Debian: please install what corresponds to: $*"; return 1; }
    mapfile -t missing < <(debian_missing "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if as_root true; then
        say "installing from Debian: ${missing[*]}"
        "${apt[@]}" update >/dev/null || true
        # One by one where they will not go together: a name that this release does not know would keep out all the others.
        "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >/dev/null || for package in "${missing[@]}"; do
            "${apt[@]}" install -y --no-install-recommends "$package" >/dev/null || true
        done
        mapfile -t missing < <(debian_missing "$@")
        [ ${#missing[@]} -gt 0 ] || return 0
    fi
    loud "Not installed: ${missing[*]}
   What needs them is skipped. To install them: sudo apt-get install ${missing[*]}"
    return 1
}

# make_venv PYTHON FOLDER: a virtual environment for this Python; one of another Python, or a broken one, is made anew.
make_venv() {
    local want
    want=$("$1" -I -c 'import sys; print(sys.version)')
    [ "$("$2/bin/python" -I -c 'import pip, sys; print(sys.version)' 2>/dev/null || true)" != "$want" ] || return 0
    if ! "$1" -I -c 'import ensurepip' 2>/dev/null; then
        debian_install "python3-venv" || die "Python's venv module is missing. Install it: sudo apt-get install python3-venv"
    fi
    say "making $2 with Python ${want%% *}"
    rm -rf "$2"
    "$1" -m venv "$2"
}

# install_pinned FOLDER FILE: what FILE pins; without the network when that is there already.
install_pinned() {
    local stamp kept=$1/.pinned-${2##*/}
    stamp=$(sha256sum <"$2")
    [ "$(cat "$kept" 2>/dev/null || true)" != "$stamp" ] || return 0
    say "installing the pinned Python packages into $1"
    "$1/bin/python" -m pip "${PIP_QUIET[@]}" install --require-hashes --only-binary :all: -r "$2" ||
        die "The pinned packages could not be installed into $1; pip's message is above."
    printf '%s\n' "$stamp" >"$kept"
}

# build_wheel FOLDER: builds the project with that environment's hatchling and prints the wheel's path.
build_wheel() {
    rm -rf "$1/wheel"
    "$1/bin/python" -m pip "${PIP_QUIET[@]}" wheel --no-index --no-build-isolation --no-deps -w "$1/wheel" . >&2 || return 1
    echo "$1"/wheel/*.whl
}

# install_wheel FOLDER WHEEL: puts the wheel there and makes sure that it, not the checkout, is what gets imported.
install_wheel() {
    local place
    "$1/bin/python" -m pip "${PIP_QUIET[@]}" install --no-index --no-deps --force-reinstall "$2"
    place=$("$1/bin/python" -P -c 'import d7agent, os; print(os.path.dirname(d7agent.__file__))')
    case $place in */site-packages/d7agent) ;; *) die "d7agent is imported from $place, not from the wheel" ;; esac
    # Behind site-packages: `tests` is found in the checkout, d7agent in the wheel.
    pwd >"${place%/d7agent}/d7agent-checkout.pth"
}

# shell_files: the scripts that shellcheck understands, by their first line, a line each.
shell_files() {
    local file first
    while read -r file; do
        IFS= read -r first <"$file" || continue
        case $first in
        '#!/bin/sh'* | '#!/bin/bash'* | '#!/usr/bin/env bash'* | '#!/usr/bin/env sh'* | '#!/bin/dash'* | '# shellcheck shell='*) echo "$file" ;;
        esac
    done < <(find .ci scripts tests systemd -type f ! -name '*.py[co]' 2>/dev/null)
}

# bandit FOLDER ARGS...: prints each finding, and fails if there is one. It also warns of a `# nosec` as unneeded for each other text in
# the same line, wrongly; tests/test_supply.py finds those that are.
bandit() {
    local folder=$1
    shift
    "$folder/bin/bandit" -q -f custom -c pyproject.toml "$@" 2> >(grep -v 'nosec encountered' >&2)
}

# What has failed so far, by name.
failed=()

# lint FOLDER: ruff, mypy, bandit and shellcheck, all of them; adds to `failed` those that were not content.
lint() {
    local typing
    "$1/bin/mypy" --strict --no-error-summary & typing=$!
    "$1/bin/ruff" check -q --output-format concise . || failed+=("ruff check")
    "$1/bin/ruff" format -q --check . || failed+=("ruff format")
    # The examples are for reading: what they may besides is what scripts/examples/ruff.toml lets them.
    bandit "$1" -x scripts/examples -r d7agent scripts scripts/d7agent || failed+=(bandit)
    bandit "$1" -s B105,B310 -r scripts/examples || failed+=("bandit (examples)")
    wait "$typing" || failed+=(mypy)
    if command -v shellcheck >/dev/null; then
        shell_files | xargs -d '\n' shellcheck -x || failed+=(shellcheck)
    else
        loud "shellcheck is missing: the shell scripts were NOT checked."
        [ "${CI:-}" != true ] || failed+=("shellcheck (missing)")
    fi
}
