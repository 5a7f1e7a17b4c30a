"""A run into a folder that holds an older run, killed -9 between its files: the folder must not pass for a whole run.

Right: a run is whole or known not to be (one commit point: a marker, or the folder renamed at the end).
0: every state is whole or refused; 1: heatmaps/tables of two runs are mixed and `wsol report` makes a page of them.
"""
import os, shutil, signal, sys, tempfile
from pathlib import Path
os.environ.setdefault("OMP_NUM_THREADS", "1")
import pandas as pd, wsol.cli, wsol.engine, wsol.report.page  # loaded once, children are forked
from wsol.report.run import Run

top = Path(tempfile.mkdtemp()); os.chdir(top)
quiet = os.open(os.devnull, os.O_RDWR)
common = ["dataset.length=8", "method=[cam]", "protocol=[choe2020]", "pictures=0", "progress=false"]

def run(words, before=None):
    pid = os.fork()
    if pid == 0:
        os.dup2(quiet, 1); os.dup2(quiet, 2)
        def hook(event, args):
            if event == "os.rename" and before and str(args[1]).endswith(before): os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        os._exit(wsol.cli.main(words))
    return os.waitpid(pid, 0)[1]

assert run([*common, "run_dir=a"]) == 0                                         # squash, view A
assert run([*common, "run_dir=b", "view=crop", "dataset.glyph=0.5"]) == 0        # another set and view
bad = 0
for before in ("per_image.parquet", "samples.parquet", "metrics.csv", "summary.csv", "config.yaml"):
    shutil.rmtree("x", ignore_errors=True); shutil.copytree("a", "x")
    status = run([*common, "run_dir=x", "view=crop", "dataset.glyph=0.5"], before)
    try: Run.open("x"); whole = True
    except Exception as error: whole = False; print(before, "refused:", str(error)[:80])
    def came(name): return "B" if (Path("x")/name).read_bytes() == (Path("b")/name).read_bytes() else "A"
    parts = {n: came(n) for n in ("heatmaps/cam.npy", "per_image.parquet", "samples.parquet", "metrics.csv", "summary.csv")}
    code = run(["report", "run=x"])
    mixed = whole and len(set(parts.values())) > 1
    bad += mixed and code == 0
    print(f"killed before {before}: signal {status & 127}, {parts}, opens as whole: {whole}, wsol report exits {code >> 8}")
print("WRONG" if bad else "right", bad, "of 5 mixed and reported without a word"); shutil.rmtree(top); sys.exit(bool(bad))
