#!/usr/bin/env bash
# ./run_all.sh                      quick suite on generated data; ends with the path of the report
# ./run_all.sh test [pytest args]   the tests
# ./run_all.sh --suite real --data DIR [flags of `bench run`]
# Makes .venv once (BENCH_PYTHON chooses another interpreter with everything installed), then runs and reports.
set -euo pipefail
cd "$(dirname "$0")"

python=${BENCH_PYTHON:-.venv/bin/python}
extras="encoders" # what fine-tunes an encoder needs transformers, the quick suite too
[ "${1:-}" = test ] && extras="test"

if [ -z "${BENCH_PYTHON:-}" ]; then
    stamp=".venv/.installed-$extras"
    if [ ! -x .venv/bin/python ]; then
        echo "making .venv (once)" >&2
        python3 -m venv .venv
    fi
    if [ ! -e "$stamp" ] || [ setup.cfg -nt "$stamp" ] || [ setup.py -nt "$stamp" ] || [ constraints.txt -nt "$stamp" ]; then
        echo "installing what is needed into .venv (once)" >&2
        known=(-c constraints.txt) # the versions that the tests ran with; no others are known of a newer Python
        .venv/bin/python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || known=()
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "${known[@]}" -e ".[$extras]"
        touch "$stamp"
    fi
fi

if [ "${1:-}" = test ]; then
    shift
    export OMP_NUM_THREADS=1 # one thread in each of the test processes
    exec "$python" -m pytest -n auto --maxprocesses 8 "$@"
fi

suite="" data=""
args=("$@")
for ((i = 0; i < $#; i++)); do
    case "${args[i]}" in
        --suite) suite=${args[i + 1]:-} ;;
        --data | --data=*) data=yes ;;
        --suite=*) suite=${args[i]#*=} ;;
        --dry-run | -h | --help) exec "$python" -m bench run "$@" ;;
    esac
done

[ -n "$suite" ] || suite=${data:+real} # files of your own: the real suite, as `bench run` takes it
suite=${suite:-quick}

code=0
"$python" -m bench run --suite "$suite" --report "$@" || code=$? # 1: some jobs failed; the report is built all the same
if [ "$code" -le 1 ] && [ "$suite" = quick ]; then
    echo "next: ${python%python}bench data check DIR says what your feature files are, ./run_all.sh --suite real --data DIR runs on them"
fi
exit "$code"
