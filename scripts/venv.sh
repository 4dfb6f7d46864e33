# Sourced by the scripts beside it: makes .venv from any Python 3.11+ and installs the package in it.
# use: . scripts/venv.sh; venv EXTRA   (EXTRA is "" or "dev")

h2log_python() {
    for candidate in "${PYTHON:-}" python3 python3.13 python3.12 python3.11 python; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    echo "h2log: no Python 3.11 or newer found; install one, or name it: PYTHON=/path/to/python3 $0" >&2
    return 2
}

venv() {
    extra=$1
    # What was installed, and from which pyproject: when both still hold, a start costs nothing.
    want="$extra $(cksum < pyproject.toml)"
    stamp=.venv/h2log-stamp-${extra:-run}
    if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then
        return 0
    fi
    if [ ! -x .venv/bin/python ]; then
        python=$(h2log_python) || exit 2
        echo "h2log: making .venv with $("$python" --version 2>&1)" >&2
        "$python" -m venv .venv || {
            echo "h2log: could not make .venv; on Debian and Ubuntu: apt install python3-venv" >&2
            exit 2
        }
    fi
    echo "h2log: installing h2log${extra:+ with the $extra tools} into .venv (once)" >&2
    .venv/bin/python -m pip --disable-pip-version-check install -q -e ".${extra:+[$extra]}" >&2 || {
        echo "h2log: the installation failed; what pip said is above" >&2
        exit 2
    }
    printf '%s\n' "$want" > "$stamp"
}
