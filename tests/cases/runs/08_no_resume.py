"""kill -9 late in recording; `wsol resume=true run_dir=x` goes on, and nothing of the dead run stays."""
from _h import *
import wsol.heatmaps.store as st
big = ["dataset.length=256", "batch_size=16", "shard_size=64", *BASE[1:], "report=false", "run_dir=x"]
add = st.HeatmapStore.add
seen = Path("seen")
def counting(self, method, indices, maps):
    add(self, method, indices, maps)
    with seen.open("a") as file: file.write(f"{len(indices)}\n")
def count(): return sum(map(int, seen.read_text().split()))
def dying(self, method, indices, maps):
    counting(self, method, indices, maps)
    if count() >= 240: os.kill(os.getpid(), signal.SIGKILL)
def pre(): st.HeatmapStore.add = dying
def pre2(): st.HeatmapStore.add = counting
killed, _ = run(big, pre=pre); left = sorted(p.name for p in Path("x/parts").iterdir()); print("killed after 240 of 256:", killed, left)
seen.unlink(); kept = 64 * len([name for name in left if name.startswith("0")])
code, said = run(["resume=true", "run_dir=x"], pre=pre2)
stay = [p.name for p in Path("x").rglob("*") if p.name.startswith(".") or p.name == "parts"]
right = code == 0 and kept > 0 and count() == 256 - kept and Path("x/run.json").is_file() and not stay
verdict(not right, f"exits {code}; {kept} were kept and {count()} of 256 recorded again; left for ever: {stay} {said[-400:]}")
