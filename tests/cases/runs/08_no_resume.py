"""kill -9 late in recording; the same command again must go on, not begin anew (and not leave the dead run's maps for ever)."""
from _h import *
n = []
big = ["dataset.length=256", "batch_size=16", "shard_size=64", *BASE[1:], "report=false", "run_dir=x"]
import time, wsol.heatmaps.store as st
add = st.HeatmapStore.add
def dying(self, method, indices, maps):
    add(self, method, indices, maps)
    n.append(len(indices))
    if sum(n) >= 240: os.kill(os.getpid(), signal.SIGKILL)
def pre(): st.HeatmapStore.add = dying
c, _ = run(big, pre=pre); left = sorted(p.name for p in Path("x").iterdir()); print("killed after 240 of 256:", c, left)
seen = Path("seen")
def counting(self, method, indices, maps): add(self, method, indices, maps); seen.open("a").write(f"{len(indices)}\n")
def pre2(): st.HeatmapStore.add = counting
c, said = run([*big, "resume=true"], pre=pre2); again = sum(map(int, seen.read_text().split())); stay = [p.name for p in Path("x").iterdir() if p.name.startswith(".")]
verdict(c != 0 or again == 256 or stay, f"the same command recorded {again} of 256 again; left for ever: {stay}")
