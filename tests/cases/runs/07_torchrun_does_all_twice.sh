#!/bin/bash
# torchrun with two processes: right is that each does half (or a refusal); wrong that each does everything into one folder.
WSOL=${WSOL:-wsol}; T=$(mktemp -d); trap 'rm -rf "$T"' EXIT; cd "$T"; export OMP_NUM_THREADS=1
"$PY" -m torch.distributed.run --nproc_per_node=2 --no-python "$WSOL" dataset.length=24 'method=[cam]' 'protocol=[choe2020]' pictures=0 report=false run_dir="$T/x" >out 2>&1; rc=$?
n=$(grep -c "^shapes (test, 24 samples)" out); echo "rc=$rc, tables printed: $n"
[ $rc = 0 ] && [ "$n" = 1 ] && exit 0; cat out; echo "WRONG: both processes did all 24 samples into one folder; RANK and WORLD_SIZE are never read"; exit 1
