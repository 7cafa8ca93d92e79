#!/usr/bin/env bash
# ./run_all.sh                      quick suite on generated data; ends with the path of the report
# ./run_all.sh test [pytest args]   the tests
# ./run_all.sh --suite real --data DIR [flags of `bench run`]
# Makes .venv once (BENCH_PYTHON chooses another interpreter with everything installed), then runs and reports.
set -euo pipefail
here=$PWD
cd "$(dirname "$0")"

python=${BENCH_PYTHON:-.venv/bin/python}
extras="encoders" # what fine-tunes an encoder needs transformers, the quick suite too
[ "${1:-}" = test ] && extras="test"

cannot() { # what is missing ends in one line and exit code 2; 1 would say that jobs failed
    echo "run_all.sh: $1" >&2
    exit 2
}

if [ -z "${BENCH_PYTHON:-}" ]; then
    stamp=".venv/.installed-$extras"
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv (once)" >&2
        python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || cannot "needs Python 3.10 or newer as python3; BENCH_PYTHON=... names one with everything installed"
        python3 -m venv .venv || { rm -rf .venv; cannot "python3 cannot make .venv (on Debian and Ubuntu: apt install python3-venv)"; }
    fi
    if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ setup.py -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
        echo "installing what is needed into .venv (once; torch is large: some minutes)" >&2
        known=(-c constraints.txt) # the versions that the tests ran with; no others are known of a newer Python
        .venv/bin/python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || known=()
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "${known[@]}" -e ".[$extras]" ||
            cannot "pip could not install what is needed: its lines above say why; the same command tries again"
        touch "$stamp"
    fi
fi

if [ "${1:-}" = test ]; then
    shift
    export OMP_NUM_THREADS=1 # one thread in each of the test processes
    exec "$python" -m pytest -n auto --maxprocesses 8 "$@"
fi

# a folder that was named from elsewhere is meant there; results and reports lie beside this script
there() { case "$1" in /*) echo "$1" ;; *) [ -e "$here/$1" ] && echo "$here/$1" || echo "$1" ;; esac; }

suite="" data="" verb=run
args=("$@")
for ((i = 0; i < $#; i++)); do
    case "${args[i]}" in
        --suite) suite=${args[i + 1]:-} ;;
        --suite=*) suite=${args[i]#*=} ;;
        --dry-run | -h | --help) verb=look ;;
    esac
    case "${args[i]}" in
        --data | --data=*) data=yes ;;
    esac
    case "${args[i]}" in
        --data | --dataset-from | --plugins | --cluster-config) [ -z "${args[i + 1]:-}" ] || args[i + 1]=$(there "${args[i + 1]}") ;;
        --data=?* | --dataset-from=?* | --plugins=?* | --cluster-config=?*) args[i]=${args[i]%%=*}=$(there "${args[i]#*=}") ;;
    esac
done
[ "$verb" = run ] || exec "$python" -m bench run "${args[@]}"

[ -n "$suite" ] || suite=${data:+real} # files of your own: the real suite, as `bench run` takes it
suite=${suite:-quick}

code=0
"$python" -m bench run --suite "$suite" --report ${args[@]+"${args[@]}"} || code=$? # 1: some jobs failed; the report is built all the same
if [ "$code" -le 1 ] && [ "$suite" = quick ]; then
    echo "next: ${python%python}bench data check DIR says what your feature files are, ./run_all.sh --suite real --data DIR runs on them"
fi
exit "$code"
