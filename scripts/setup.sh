#!/usr/bin/env bash
# Makes the virtual environment of one stack, or brings it up to date. `make setup` calls it.
#
#     STACK=onedl|openmmlab  PYTHON=python3  scripts/setup.sh
#
# May be run again at any time: with nothing to do it ends in well under a second, and after an
# interruption it goes on where it can. The versions are in requirements/, and only there.
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
    *) die "STACK=$stack is not known: use STACK=onedl or STACK=openmmlab." ;;
esac
pins=requirements/$stack.txt

command -v "$python" >/dev/null ||
    die "There is no command '$python': install Python 3.10 or later, or run 'make PYTHON=/path/to/python3 …'."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "$("$python" --version) is too old: this package needs Python 3.10 or later, name one with 'make PYTHON=…'."

# One set-up at a time for each stack, where the system has flock.
if command -v flock >/dev/null; then
    exec 9>"$venv.lock"
    flock -n 9 || { say "waiting for another set-up to finish"; flock 9; }
fi

# Two fingerprints: of what decides the environment, and of the files that the editable install copies.
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
busy=$venv.busy # there while a set-up is at work, or if one was interrupted; says in which stage
has_stamp() { [ -f "$1" ] && [ "$(cat "$1")" = "$2" ] && [ ! -f "$busy" ]; }

if has_stamp "$env_stamp" "$want_env" && has_stamp "$files_stamp" "$want_files"; then
    exit 0
fi

bin=$venv/bin
pip() { "$bin/python" -m pip --disable-pip-version-check --no-input "$@"; }

install_this_package_again() {
    say "configs, tools or the version changed: renewing the copies that mim reads"
    pip install --quiet --no-deps --no-build-isolation --editable .
    echo "$want_files" >"$files_stamp"
}
if has_stamp "$env_stamp" "$want_env"; then
    install_this_package_again
    exit 0
fi

started=$SECONDS

# 1. The virtual environment. One left half-made by an interruption is used again if it is sound.
# Asked of the venv's Python: does it run, is it of the version wanted, are its packages whole?
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
        was=$("$bin/python" -c "$long" 2>/dev/null) || was="a Python that does not run"
        now=$("$python" -c "$long")
        if [ "$was" = "$now" ]; then
            say "$venv is unfinished: making it again"
        else
            say "$venv is of ${was%% (*}, and $python is ${now%% (*}: making it again. (To keep a Python, give PYTHON=... to every make target.)"
        fi
    fi
    say "making $venv with $("$python" --version)"
    echo making >"$busy"
    "$python" -m venv --clear "$venv" ||
        die "'$python -m venv' failed: install Python's venv module (Debian and Ubuntu: the package python3-venv) and run this again."
fi
echo filling >"$busy"
rm -f "$env_stamp" "$files_stamp"

pin() { # the line of the pins file that names the distribution $1
    grep -E "^$1[=<>~]" "$pins" || die "$pins does not pin $1."
}

# 2. Build tools, then torch: mmcv is compiled against the torch that is there.
say "build tools and $(pin torch)"
pip install --quiet --upgrade --constraint requirements/constraints.txt \
    pip "$(pin setuptools)" wheel ninja packaging hatchling editables
pip install --quiet --constraint requirements/constraints.txt "$(pin torch)" numpy

# A machine without a display may lack the GUI libraries that opencv-python loads. mmcv needs cv2.
mend_opencv() {
    local version='from importlib.metadata import version; print(version("opencv-python"))'
    version=$("$bin/python" -c "$version" 2>/dev/null) || return 0 # not there yet
    ! "$bin/python" -c 'import cv2' 2>/dev/null || return 0
    say "opencv-python cannot load here, which is usual without a display: using its headless twin"
    pip install --quiet --no-deps --force-reinstall "opencv-python-headless==$version"
}

# 3. mmcv with its compiled ops. pip keeps the wheel, so this is slow once for each machine.
has_ops() { "$bin/python" -c 'import torch, mmcv._ext' >/dev/null 2>&1; }
has_pin() {
    [ "$(pin "$mmcv")" = "$mmcv==$("$bin/python" -c \
        "from importlib.metadata import version; print(version('$mmcv'))" 2>/dev/null)" ]
}
mend_opencv
if ! has_pin || ! has_ops; then
    compiler=${CXX:-}
    for candidate in c++ g++ clang++; do
        [ -n "$compiler" ] || ! command -v "$candidate" >/dev/null || compiler=$candidate
    done
    command -v "${compiler%% *}" >/dev/null ||
        die "mmcv's ops must be compiled, and there is no C++ compiler: install one (Debian and Ubuntu: the package g++) and run this again."
    headers=$("$bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    [ -f "$headers/Python.h" ] ||
        die "mmcv's ops must be compiled, and Python's headers are not in $headers: install them (Debian and Ubuntu: the package python3-dev) and run this again."
    export CXX="$compiler" MMCV_WITH_OPS=1 MAX_JOBS="${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}"
    # torch's build looks for ninja on the PATH.
    install_mmcv() {
        PATH="$PWD/$bin:$PATH" pip install --no-build-isolation \
            --constraint requirements/constraints.txt "$@" "$(pin "$mmcv")"
    }
    log=$venv/mmcv-build.log
    say "compiling $(pin "$mmcv") with its ops: about 6 minutes on two cores, seconds when pip has kept the wheel (log: $log)"
    install_mmcv >"$log" 2>&1 || {
        tail -n 30 "$log" >&2
        die "mmcv could not be compiled; its last lines are above, all of them in $log."
    }
    mend_opencv
    if ! has_ops; then
        # pip kept a wheel made without ops, or for another torch.
        say "the mmcv that pip had kept has no ops for this torch: compiling it again"
        install_mmcv --no-cache-dir --force-reinstall --no-deps >>"$log" 2>&1 || {
            tail -n 30 "$log" >&2
            die "mmcv could not be compiled; its last lines are above, all of them in $log."
        }
        has_ops || die "mmcv was compiled without ops all the same ('import mmcv._ext' fails): see $log for the reason."
    fi
fi

# 4. The rest of the stack and this package in one go, so that pip sees every demand at once.
say "mmengine, mmdet, mim and this package"
pip install --quiet --requirement "$pins" --editable ".[$extras]"
mend_opencv

# 5. Nothing is taken on trust.
"$bin/python" scripts/verify_stack.py "$pins" || die "the environment in $venv is not as $pins wants it: delete $venv and run this again."

echo "$want_files" >"$files_stamp"
echo "$want_env" >"$env_stamp"
rm -f "$busy"
say "ready in $((SECONDS - started)) s: $venv"
