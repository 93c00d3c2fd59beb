#!/usr/bin/env bash
# Everything that needs a GPU, by one command, in less than nine minutes: tests, throughput, large N, accuracy over time.
#
#     bash benchmarks/gpu.sh OUT [--cifar FOLDER] [--device cpu] [--smoke]
#
# --cifar: folder of CIFAR-10's parquet files (train*.parquet, test*.parquet below it); without it that part is left out.
# --smoke: tiny sizes, which with `--device cpu` take half a minute on two free cores.
#
# OUT receives tests.jsonl, and throughput, large_n and cifar as .jsonl and .png, each line as soon as it is measured, and
# log.txt. Each part has its own time limit and may fail without the others. The network is not used: packages that are
# missing are installed from the folder `wheels` of the repository, where there is one. To fill it, for Python 3.12:
#
#     pip download --dest wheels --no-deps --only-binary=:all: --python-version 3.12 jsonargparse docstring-parser \
#         typeshed-client importlib-resources lazy-loader pytest pytest-timeout pluggy iniconfig hypothesis sortedcontainers
#
# PYTHON is the interpreter, python3 if unset.
set -u

usage() {
    echo "usage: bash benchmarks/gpu.sh OUT [--cifar FOLDER] [--device cuda|cpu] [--smoke]" >&2
    exit 2
}

out='' device=cuda smoke='' cifar=''
while (($#)); do
    case $1 in
        --smoke) smoke=yes ;;
        --device | --cifar) (($# > 1)) || usage; declare "${1#--}=$2"; shift ;;
        -*) usage ;;
        *) [[ -z $out ]] || usage; out=$1 ;;
    esac
    shift
done
[[ -n $out ]] || usage

SECONDS=0
total=535 # seconds, of the whole
python=${PYTHON:-python3}
mkdir -p "$out" || exit 1
out=$(cd "$out" && pwd)
[[ -z $cifar ]] || cifar=$(realpath -m "$cifar")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PYTHONPATH="$PWD/src:$PWD/benchmarks${PYTHONPATH:+:$PYTHONPATH}"
export DIET_TEST_REPORT="$out/tests.jsonl" CUBLAS_WORKSPACE_CONFIG=:4096:8 PYTHONUNBUFFERED=1
unset PYTHONDONTWRITEBYTECODE # without byte code each process compiles Lightning for 15 seconds
rm -f "$out"/{tests,throughput,large_n,cifar}.jsonl "$out"/{throughput,large_n,cifar}.png "$out/log.txt"
summary=$(mktemp)
trap 'rm -f "$summary"' EXIT

say() { echo "$*" | tee -a "$out/log.txt"; }

# the requirements of the package and its tests that are not met
unmet() {
    "$python" - <<'PYTHON'
import tomllib
from importlib.metadata import PackageNotFoundError, version
from packaging.requirements import Requirement

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)
for text in project["project"]["dependencies"] + project["dependency-groups"]["test"]:
    need = Requirement(text)
    try:
        met = (need.marker and not need.marker.evaluate()) or need.specifier.contains(version(need.name), prereleases=True)
    except PackageNotFoundError:
        met = False
    if not met:
        print(text.partition(";")[0].strip())
PYTHON
}

while read -r need; do
    if [[ -d wheels ]] && "$python" -m pip install --quiet --no-index --find-links wheels "$need" >>"$out/log.txt" 2>&1; then
        say "installed $need"
    else
        say "not installed: $need"
    fi
done < <(unmet 2>>"$out/log.txt")

# part NAME SECONDS LINES COMMAND...: runs a command for at most SECONDS; what it prints goes to LINES, or with '' to the log
part() {
    local name=$1 limit=$2 lines=$3 start=$SECONDS status left=$((total - SECONDS))
    shift 3
    ((limit < left)) || limit=$((left > 1 ? left : 1))
    timeout -k 5 "$limit" "$@" > >(if [[ $lines ]]; then cat >>"$out/$lines"; else sed -u "s/^/[$name] /" >>"$out/log.txt"; fi) \
        2> >(sed -u "s/^/[$name] /" >>"$out/log.txt")
    status=$?
    local result=passed
    ((status == 0)) || result="failed with status $status"
    ((status != 124 && status != 137)) || result="ended after its limit of $limit s"
    printf '%-22s %4d s  %s\n' "$name" $((SECONDS - start)) "$result" | tee -a "$summary"
    [[ $lines ]] && "$python" benchmarks/gpu_figures.py "$out" 2>&1 | sed "s/^/[$name] /" >>"$out/log.txt"
}

test_files=$(grep -lE 'each_device|ON_GPU|CUDA\b' tests/*/test_*.py)
pytest=("$python" -m pytest -q -p no:cacheprovider -p gpu_report -o filterwarnings=default
    -o "addopts=--strict-markers --import-mode=importlib")
throughput=("$python" benchmarks/throughput.py --device "$device" --precision bf16-mixed --rounds 1)
large_n=("$python" benchmarks/large_n.py --device "$device" --moment-bits 32 8 --head)
accuracy() {
    if [[ -n $cifar ]]; then
        part cifar "$1" '' "$python" benchmarks/cifar.py "$cifar" "$out" --device "$device" "${@:2}"
    else
        echo "cifar                  left out: --cifar names the folder of the parquet files" | tee -a "$summary"
    fi
}

if [[ $smoke ]]; then
    part throughput 240 throughput.jsonl "${throughput[@]}" --backbone resnet8 --size 8 --num-samples 256 --batch-size 32 \
        --workers 0 --warmup 1 --steps 2 --threads 1 --cases backbone diet &
    part large_n 240 large_n.jsonl "${large_n[@]}" dense fused sampled --num-samples 1000 4000 --backbone resnet8 --image-size 8 \
        --batch-size 32 --steps 2 &
    part tests 240 '' "${pytest[@]}" -k "float64_does and not cuda" tests/objective/test_heads.py &
    accuracy 240 --seconds 1 --backbone resnet8 --batch-size 32 --precision 32-true &
    wait
else
    # the workers deliver 16 batches at a time, so the steps are multiples of 16, all within one epoch
    throughput+=(--workers 16 --diet-workers 0)
    photos=(--size 224 --num-samples 8448 --batch-size 128 --warmup 16 --steps 48)
    part "throughput resnet18" 45 throughput.jsonl "${throughput[@]}" --backbone resnet18 --num-samples 50000 \
        --batch-size 256 --warmup 32 --steps 128
    part "throughput resnet50" 62 throughput.jsonl "${throughput[@]}" --backbone resnet50 "${photos[@]}"
    part "throughput vit_small" 62 throughput.jsonl "${throughput[@]}" --backbone timm/vit_small_patch16_224 "${photos[@]}"
    part large_n 120 large_n.jsonl "${large_n[@]}" fused sampled dense --num-samples 10000 100000 1000000 4000000 \
        --batch-size 256 --precision bf16-mixed --steps 8
    # the tests are small beside the training, and use other parts of the machine; so that all ends in time they run at once
    accuracy 238 --seconds 222 &
    # shellcheck disable=SC2086
    part tests 238 '' "${pytest[@]}" -m gpu $test_files &
    wait
fi

say ''
say "$(cat "$summary")"
say "$(grep -c '"outcome": "passed"' "$out/tests.jsonl" 2>/dev/null || true) tests passed, \
$(grep -c '"outcome": "failed"' "$out/tests.jsonl" 2>/dev/null || true) failed, \
$(grep -c '"outcome": "skipped"' "$out/tests.jsonl" 2>/dev/null || true) skipped; all in $SECONDS s; results in $out"
! grep -qE 'failed|ended' "$summary"
