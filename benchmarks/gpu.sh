#!/usr/bin/env bash
# Run tests, benchmarks and a training on a GPU: 9 minutes on a fresh machine without network.
#
#     benchmarks/gpu.sh --pack       with a network: download what that machine lacks into .gpu/
#     benchmarks/gpu.sh              on the machine, in this checkout with .gpu/: writes $OUT/gpu.md
#     benchmarks/gpu.sh --dry-run    every part on the CPU, in tiny form
#
# OUT: folder of the results (work_dirs/gpu). PYTHON: a Python with torch and pytest (python3); for
# --pack, this project's environment. TARGET: the machine's Python version (3.12).
# The machine needs a CUDA compiler (nvcc) and ninja, to build mmcv's ops for its torch.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=${PYTHON:-python3}
mode=${1:-gpu}

if [ "$mode" = --pack ]; then
    set -e
    rm -rf .gpu && mkdir .gpu
    "$python" -m pip wheel -q --no-deps --no-build-isolation --wheel-dir .gpu .
    # not in an image with torch, numpy, scipy, matplotlib, OpenCV and pytest
    "$python" -m pip wheel -q --no-deps --wheel-dir .gpu \
        -r <(grep -E '^onedl-mm(engine|detection)' requirements/onedl.txt) terminaltables==3.1.10
    "$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${TARGET:-3.12}" \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --dest .gpu \
        -c requirements/constraints.txt \
        addict termcolor yapf platformdirs shapely pycocotools imagehash pywavelets \
        imaug imagecorruptions-imaug
    packages=$("$python" -c 'import os, mmcv; print(os.path.dirname(os.path.dirname(mmcv.__file__)))')
    cp -r "$packages"/mmcv "$packages"/onedl_mmcv-*.dist-info .gpu/
    find .gpu/mmcv \( -name '_ext*' -o -name __pycache__ \) -prune -exec rm -rf {} +
    du -sh .gpu
    exit
fi

case $mode in
    gpu) device=cuda total=540 mmcv=.gpu/mmcv cpu=() ;;
    --dry-run) device=cpu total=7200 cpu=(--cpu)
        mmcv=$("$python" -c 'import os, mmcv; print(os.path.dirname(mmcv.__file__))') ;;
    *) sed -n 2,11p "$0"; exit 2 ;;
esac
out=${OUT:-work_dirs/gpu}
mkdir -p "$out" && out=$(realpath "$out")
work=$(mktemp -d)
site=$work/site
mkdir "$site"
export PYTHONPATH=$site:$PWD PYTHONUNBUFFERED=1
: >"$work/parts"

# part NAME SECONDS COMMAND...: run a command with a time limit, and record its result
part() {
    local name=$1 limit=$2 start=$SECONDS status=0
    shift 2
    [ $device = cuda ] || limit=$((limit * 20)) # two busy cores
    [ "$limit" -le $((total - SECONDS)) ] || limit=$((total - SECONDS))
    if [ "$limit" -gt 0 ]; then
        echo "$ $*" >>"$out/${name%%[ ,]*}.log"
        timeout "$limit" "$@" >>"$out/${name%%[ ,]*}.log" 2>&1 || status=$?
    else
        status=124
    fi
    echo "| $name | $((SECONDS - start)) s | $status |" | tee -a "$work/parts"
}
rm -f "$out"/{setup,train,tests,compare}.log

ls .gpu/*.whl >/dev/null 2>&1 && [ $device = cuda ] &&
    part setup 60 "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" .gpu/*.whl
part "setup of mmcv's ops" 150 "$python" -m benchmarks.mmcv_ops "$mmcv" "$site" "${cpu[@]}"

# First training and tests in parallel, which are not timed; then benchmarks.
train() {
    local size=() options=(train_dataloader.num_workers=4 train_dataloader.persistent_workers=True)
    [ $device = cuda ] || size=(--train 16 --val 4) options=(max_epochs=1)
    part "train, images" 60 "$python" -m fastdetr_mmdet.datasets.shapes "$work/shapes" "${size[@]}"
    part "train" 200 "$python" tools/train.py configs/demo/fast-detr_r18_shapes.py \
        --work-dir "$work/train" --cfg-options "data_root=$work/shapes/" "${options[@]}"
}
train &
if [ $device = cuda ]; then
    part tests 200 "$python" -m pytest tests/test_on_gpu.py tests/test_models tests/test_ecosystem.py \
        -q -p no:cacheprovider -m "gpu and not slow" --continue-on-collection-errors
else
    part tests 600 "$python" -m pytest tests/test_on_gpu.py -q -m slow -k "cpu and focal"
fi
wait

compare() {
    part "compare, $*" 90 "$python" -m benchmarks.compare --device $device "${sizes[@]}" --models "$@"
}
if [ $device = cuda ]; then
    sizes=(--rounds 3 --batches 1 8 --dtypes fp32 bf16)
    compare conditional-detr --what inference train
    compare deformable-detr-refine-twostage --what inference train
    compare conditional-detr --mode compiled --what inference
    compare deformable-detr-refine-twostage --mode compiled --what inference
    compare conditional-detr --mode compiled --what train
    compare dino --what inference train
else
    export TORCH_COMPILE_DISABLE=1 # arguments are tried, not the compiler
    sizes=(--rounds 1 --batches 1 --dtypes fp32 bf16 --image-size 64 96 --threads 1)
    compare conditional-detr --what inference
    compare conditional-detr --mode compiled --what inference
fi

{
    "$python" -m benchmarks.table "$out/compare.log"
    printf '\n| part | took | exit status |\n|---|---|---|\n'
    cat "$work/parts"
    printf '\nTests: %s\n' "$(tail -n 1 "$out/tests.log")"
    printf '\nTraining: %s\n' "$(grep -o 'coco/bbox_mAP: .*' "$out/train.log" | tail -n 1)"
} | tee "$out/gpu.md"
failed=$(grep -vc '| 0 |$' "$work/parts")
rm -rf "$work"
exit $((failed > 0))
