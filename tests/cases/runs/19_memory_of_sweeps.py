"""Bytes of memory per row of sweeps.parquet when assemble() joins its parts (it keeps all of them, and the joined copy)."""
from _h import *
import numpy as np, pyarrow as pa, resource
from wsol.tables import SCHEMAS, table_writer
run(["dataset.length=64", *BASE[1:], "report=false", "run_dir=x"]); w = pd.read_parquet("x/sweeps.parquet"); k = 1_000_000 // len(w)
rss = lambda: int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) / 1024
base, n = rss(), 12 * k * len(w); Path("j").mkdir()
with table_writer(Path("j"), {}) as add:
    for _ in range(12): add("sweeps", pa.concat_tables([pa.Table.from_pandas(w, SCHEMAS["sweeps"], preserve_index=False)] * k))
per = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - base) * 1048576 / n; rows = len(w) / 64
for what, cells in (("50k x 30 methods x 6 protocols", 50_000 * 180), ("1.28M x 3 x 2 (default)", 1_281_167 * 6)): print(f"{what}: {cells*rows/1e9:.2f} G rows, {cells*rows*per/1e9:.0f} GB of memory, {cells*rows*4/1e9:.0f} GB on disk")
verdict(50_000 * 180 * rows * per > 64e9, f"{per:.0f} B a row, {rows:.0f} rows a sample, method and protocol; all in memory at once")
