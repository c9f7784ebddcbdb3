#!/usr/bin/env bash
# Create or update the virtual environment of one stack. `make setup` calls it.
#
#     STACK=onedl|openmmlab  PYTHON=python3  scripts/setup.sh
#
# It may run again at any time: without changes it ends in under a second, and after an interruption
# it continues. The versions are in requirements/ only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stack=${STACK:-onedl}
python=${PYTHON:-python3}
extras=test,lint,analysis,export

say() { printf '\n[setup %s] %s\n' "$stack" "$*"; }
die() { printf '\n[setup %s] %s\n' "$stack" "$*" >&2; exit 1; }

case $stack in
    onedl) venv=.venv mmcv=onedl-mmcv ;;
    openmmlab) venv=.venv-openmmlab mmcv=mmcv ;;
    *) die "STACK=$stack is unknown: use STACK=onedl or STACK=openmmlab." ;;
esac
pins=requirements/$stack.txt

command -v "$python" >/dev/null ||
    die "There is no command '$python': install Python 3.10 or later, or run make with PYTHON=/path/to/python3."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$python" --version) is too old: this package needs Python 3.10 or later. Name one with make PYTHON=..."

# Only one set-up of a stack at a time, if the system has flock.
if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock -n 9 || { say "waiting for another set-up to finish"; flock 9; }
fi

# Two fingerprints: of the files that define the environment, and of those that the editable install
# copies.
fingerprint() {
    "$python" - "$@" <<'PY'
import hashlib, pathlib, sys

digest = hashlib.sha256(f"{sys.version} {pathlib.Path.cwd()}".encode())
for name in sys.argv[1:]:
    top = pathlib.Path(name)
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(f"{path}\0".encode() + path.read_bytes() + b"\0")
print(digest.hexdigest())
PY
}
want_env=$(fingerprint requirements/constraints.txt "$pins" pyproject.toml scripts)
want_files=$(fingerprint configs tools model-index.yml fastdetr_mmdet/version.py)
env_stamp=$venv/.setup-done
files_stamp=$venv/.setup-files
busy=$venv.busy # exists during a set-up and after an interrupted one; holds its stage
has_stamp() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ] && [ ! -f "$busy" ]; }

if has_stamp "$env_stamp" "$want_env" && has_stamp "$files_stamp" "$want_files"; then
    exit 0
fi

bin=$venv/bin
pip() { "$bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

install_this_package_again() {
    say "configs, tools or the version changed: updating the copies that mim reads"
    pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$want_files" >"$files_stamp"
}
if has_stamp "$env_stamp" "$want_env"; then
    install_this_package_again
    exit 0
fi

started=$SECONDS

# 1. The virtual environment. An unfinished one is used again if its Python runs, has the wanted
# version, and has complete packages.
venv_is_sound() {
    [ -x "$bin/python" ] || return 1
    local version='import sys; print(sys.version)'
    [ "$("$bin/python" -c "$version" 2>/dev/null)" = "$("$python" -c "$version")" ] || return 1
    "$bin/python" -m pip --version >/dev/null 2>&1 || return 1
    [ ! -f "$busy" ] || { grep -qx filling "$busy" && "$bin/python" scripts/venv_intact.py; }
}
if ! venv_is_sound; then
    if [ -e "$venv" ]; then
        long='import sys; print(sys.version)'
        was=$("$bin/python" -c "$long" 2>/dev/null) || was="that does not run"
        now=$("$python" -c "$long")
        if [ "$was" = "$now" ]; then
            say "$venv is unfinished: creating it again"
        else
            say "$venv has a Python ${was%% (*}, and $python is ${now%% (*}: creating it again. (To keep a Python, give PYTHON=... to every make target.)"
        fi
    fi
    say "creating $venv with $("$python" --version)"
    echo making >"$busy"
    "$python" -m venv --clear "$venv" ||
        die "'$python -m venv' failed: install Python's venv module (Debian and Ubuntu: package python3-venv) and run this again."
fi
echo filling >"$busy"
rm -f "$env_stamp" "$files_stamp"

pin() { # the line of distribution $1 in the pins file
    grep -E "^$1[=<>~]" "$pins" || die "$pins does not pin $1."
}

# 2. Build tools, then torch: mmcv is compiled for the installed torch.
say "build tools and $(pin torch)"
pip install --quiet --upgrade --constraint requirements/constraints.txt \
    pip "$(pin setuptools)" wheel ninja packaging hatchling editables
pip install --quiet --constraint requirements/constraints.txt "$(pin torch)" numpy

# A machine without a display may lack the GUI libraries that opencv-python loads. mmcv needs cv2.
fix_opencv() {
    local version='from importlib.metadata import version; print(version("opencv-python"))'
    version=$("$bin/python" -c "$version" 2>/dev/null) || return 0 # not installed yet
    ! "$bin/python" -c 'import cv2' 2>/dev/null || return 0
    say "opencv-python cannot load, as usual without a display: installing opencv-python-headless"
    pip install --quiet --no-deps --force-reinstall "opencv-python-headless==$version"
}

# 3. mmcv with its compiled ops. pip caches the wheel, so this is slow only once per machine.
has_ops() { "$bin/python" -c 'import torch, mmcv._ext' >/dev/null 2>&1; }
has_pin() {
    [ "$(pin "$mmcv")" = "$mmcv==$("$bin/python" -c \
        "from importlib.metadata import version; print(version('$mmcv'))" 2>/dev/null)" ]
}
fix_opencv
if ! has_pin || ! has_ops; then
    compiler=${CXX:-}
    for candidate in c++ g++ clang++; do
        [ -n "$compiler" ] || ! command -v "$candidate" >/dev/null || compiler=$candidate
    done
    command -v "${compiler%% *}" >/dev/null ||
        die "mmcv's ops must be compiled, but there is no C++ compiler: install one (Debian and Ubuntu: package g++) and run this again."
    headers=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] ||
        die "mmcv's ops must be compiled, but Python's headers are not in $headers: install them (Debian and Ubuntu: package python3-dev) and run this again."
    export CXX="$compiler" MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}"
    # torch's build looks for ninja on the PATH.
    install_mmcv() {
        PATH="$PWD/$bin:$PATH" pip install --no-build-isolation \
            --constraint requirements/constraints.txt "$@" "$(pin "$mmcv")"
    }
    log=$venv/mmcv-build.log
    say "compiling $(pin "$mmcv") with its ops: about 6 minutes on two cores, seconds if pip has the wheel in its cache (log: $log)"
    install_mmcv >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "mmcv could not be compiled: see the last lines of the log above, or all of it in $log."
    }
    fix_opencv
    if ! has_ops; then
        # pip's cache had a wheel without ops, or for another torch.
        say "pip's cached mmcv has no ops for this torch: compiling it again"
        install_mmcv --no-cache-dir --force-reinstall --no-deps >>"$log" 2>&1 || {
            tail -n 30 "$log" >&2
            die "mmcv could not be compiled: see the last lines of the log above, or all of it in $log."
        }
        has_ops || die "'import mmcv._ext' fails: mmcv was compiled without ops. The reason is in $log."
    fi
fi

# 4. The rest of the stack and this package in one call, so that pip resolves all of it together.
say "mmengine, mmdet, mim and this package"
pip install --quiet --requirement "$pins" --editable ".[$extras]"
fix_opencv

# 5. Verify the result.
"$bin/python" scripts/verify_stack.py "$pins" || die "the environment in $venv differs from $pins: delete $venv and run this again."

echo "$want_files" >"$files_stamp"
echo "$want_env" >"$env_stamp"
rm -f "$busy"
say "ready in $((SECONDS - started)) s: $venv"
