#!/usr/bin/env bash
# Run all benchmarks on a GPU and print one table, in less than 8 minutes.
#
#   benchmarks/gpu.sh             on one GPU
#   benchmarks/gpu.sh --dry-run   the same steps at toy size on a CPU, in 2 to 3 minutes
#
# It needs a Python with PyTorch 2.9 or newer. Other missing packages are installed into a virtual
# environment on top of it, which uses the existing torch and changes nothing outside. They come
# from the network by pip, or from the folder WHEELS.
#
#   PYTHON=python3        interpreter with torch
#   WHEELS=               folder of wheels, instead of the network
#   OUT=runs/gpu          folder for environment, data and results; a dry run uses its dry-run/
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
started=$SECONDS
if [[ $# -gt 1 || ! ${1:-} =~ ^(--dry-run)?$ ]]; then
  echo "gpu.sh: $*: give --dry-run or nothing" >&2
  exit 2
fi

if [[ ${1:-} == --dry-run ]]; then
  OUT=$OUT/dry-run
  device=cpu gops=(30) seconds=3 train_seconds=300 data_options=(--batch-size 1)
  steps=("tiny 2" "tiny 4") variant_of="tiny 4" variants=(recompute)
  step_options=(--device cpu --precision bf16-mixed --repeats 1)
  train=(camvid.midway_tiny --data.num-workers 1 --data.batch-size 8)
  train+=(--run.steps 4 --run.log-every 1)
else
  device=cuda gops=(30 250) seconds=40 train_seconds=60 data_options=()
  steps=("vits 64" "vits 100" "vits 200" "vitb 64" "vitb 128")
  variant_of="vits 100" variants=(compile recompute)
  step_options=(--device cuda --precision bf16-mixed --repeats 10)
  train=(bdd100k.midway_vits --data.num-workers "$(nproc)" --run.precision bf16-mixed --run.log-every 5)
  "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null ||
    { echo "gpu.sh: $PYTHON has no torch that can use a GPU; set PYTHON, or try --dry-run" >&2; exit 2; }
fi

RESULTS=$OUT/results
rm -rf "$RESULTS" "$OUT/train" "$OUT/frames.lance"
mkdir -p "$RESULTS" "$OUT/videos"

# Run this checkout, not an installed version of the package.
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH}
needed="import av, fsspec, huggingface_hub, jaxtyping, jinja2, lance, lightning_fabric, matplotlib, pydantic, pytest"
needed+=", pytest_timeout, rich, safetensors, simplejpeg, tensorboard, tyro"
if ! "$PYTHON" -c "$needed" 2>/dev/null; then
  echo "installing missing packages into $OUT/venv"
  "$PYTHON" -m venv --system-site-packages "$OUT/venv" || exit 2
  # The existing torch stays; its pin is for development only.
  grep -v '^torch==' constraints.txt >"$OUT/constraints.txt"
  source=(); [[ -n ${WHEELS:-} ]] && source=(--no-index --find-links "$WHEELS")
  "$OUT/venv/bin/pip" install --quiet "${source[@]}" --constraint "$OUT/constraints.txt" \
    '.[store]' pytest pytest-timeout || exit 2
  PYTHON=$OUT/venv/bin/python
fi
midway() { "$PYTHON" -m midway.cli "$@"; }

# The table shows the exit code of each part; a failed part does not stop the others.
attempt() { # name, then the command; its output is kept with the results
  local name=$1 begin=$SECONDS; shift
  echo "== $name"
  "$@" >"$RESULTS/$name.out" 2>"$RESULTS/$name.err"
  local code=$?
  echo "$code $((SECONDS - begin))" >"$RESULTS/$name.code"
  [[ $code == 0 ]] || tail -n 3 "$RESULTS/$name.err" >&2
}

attempt parity env MIDWAY_DEVICE=$device "$PYTHON" -m pytest -q -p no:cacheprovider tests/parity/test_device.py
against=plain # only for the first step, which also checks loss and gradients
for each in "${steps[@]}"; do
  read -r model batch <<<"$each"
  attempt "step-$model-$batch" midway bench step --model "$model" --batch-size "$batch" \
    "${step_options[@]}" --against $against --json
  against=nothing
done
read -r model batch <<<"$variant_of"
for variant in "${variants[@]}"; do
  attempt "step-$model-$batch-$variant" midway bench step --model "$model" --batch-size "$batch" \
    "${step_options[@]}" "--$variant" --json
done

make_videos() {
  "$PYTHON" - "$OUT/videos" "$seconds" "${gops[@]}" <<'PY'
import sys
from pathlib import Path
from midway.bench.clips import make_clip
folder, seconds, *gops = sys.argv[1:]
for gop in gops:
    for seed in range(2):
        path = Path(folder, f"{gop}-{seed}.mp4")
        if not path.exists():
            unfinished = path.parent.with_name("unfinished.mp4")
            make_clip(unfinished, gop=int(gop), seed=seed, seconds=float(seconds))
            unfinished.rename(path)
PY
}
attempt videos make_videos
attempt data midway bench data "$OUT/videos" --short-sides 480 --device "$device" "${data_options[@]}" --json
attempt store midway prepare "$OUT/videos" "$OUT/frames.lance" --json
train_for() { # exit code 3: interrupted by the timeout after writing a checkpoint
  timeout --signal=TERM --kill-after=60 "$train_seconds" "$PYTHON" -m midway.cli train "${train[@]}" \
    --data.root "$OUT/frames.lance" --run.folder "$OUT/train"
  local code=$?
  [[ $code == 0 || $code == 3 || $code == 124 ]]
}
attempt train train_for

"$PYTHON" - "$RESULTS" "$OUT/train/metrics.jsonl" <<'PY'
import json, sys
from pathlib import Path
from statistics import median

results, metrics = map(Path, sys.argv[1:])
rows, failed = [], []
for code in sorted(results.glob("*.code"), key=lambda path: path.stat().st_mtime_ns):
    status, seconds = code.read_text().split()
    name, result = code.stem, ""
    lines = code.with_suffix(".out").read_text().splitlines()
    if status != "0":
        failed.append(name)
        result = f"FAILED with exit code {status}, see {code.with_suffix('.err')}"
    elif name.startswith("step"):
        bench = json.loads(lines[-1])
        ((precision, step),) = bench["precisions"].items()
        result = (
            f"{step['samples_per_second']:.1f} samples/s, {step['flops_per_second'] / 1e12:.3g} TFLOP/s, "
            f"{step['share_of_peak']:.0%} of {step['peak_flops_per_second'] / 1e12:.3g}, "
            f"{step['peak_memory_bytes'] / 2**30:.1f} GiB"
        )
        if bench["against"]:
            ratio = bench["against"]["ratios"][precision][precision]
            result += f"; plain step takes {ratio:.2f} times as long"
    elif name == "data":
        layouts = json.loads(lines[-1])["layouts"]
        result = ", ".join(f"{x['layout']}: {x['pairs_per_second']:.0f} pairs/s a core" for x in layouts)
    elif name == "train" and not metrics.exists():
        failed.append(name)
        result = f"FAILED: no step in this time, see {code.with_suffix('.err')}"
    elif name == "train":
        records = [json.loads(line) for line in metrics.read_text().splitlines()]
        settled = records[len(records) // 2 :]
        speed, wait = (median(r[key] for r in settled) for key in ("samples_per_second", "data_wait_share"))
        result = f"{speed:.1f} samples/s from the frame store, data wait {wait:.0%}, {records[-1]['step']} steps"
    else:
        result = lines[-1][:90] if lines else "done"
    rows.append((name, seconds, result))
width = max(len(name) for name, _, _ in rows)
print(f"\n{'part':<{width}}  seconds  result")
for name, seconds, result in rows:
    print(f"{name:<{width}}  {seconds:>7}  {result}")
sys.exit(1 if failed else 0)
PY
code=$?
echo "took $((SECONDS - started)) s; everything is in $RESULTS"
exit $code
