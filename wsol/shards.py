"""Shards: a run is cut into them, each is written whole, and a resume or another process does the missing ones.

While a run is made its folder has `parts/`: `identity.json`, what makes the run what it is; `lock.json`, touched as
long as its process lives; and a folder for each shard that is done, with its heatmaps, samples and scores. `run.json`,
removed first and written last, says that a run is whole.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import wsol
from wsol.console import progress, ranks
from wsol.datasets.sample import Dataset
from wsol.errors import LostRankError, UserError, first_names, quantity
from wsol.heatmaps.store import HeatmapStore, join_stores, save_heatmaps
from wsol.io import (
    atomic_write,
    is_alive,
    read_environment,
    read_json,
    reading,
    remove_stale,
    sync,
    temporary_path,
    write_json,
    write_yaml,
    writing,
)
from wsol.localization.kernels.components import unpack
from wsol.localization.sweep import PackedSweeps
from wsol.metrics.scoring import MethodScores, Scorer, ShardScores

if TYPE_CHECKING:
    from wsol.heatmaps.method import Method
    from wsol.localization import Protocol
    from wsol.models import Classifier
    from wsol.tables import Results

logger = logging.getLogger("wsol")

FORMAT = 2  # of a run's folder; 1, without run.json, is read for ever
TABLES = ("summary.csv", "metrics.csv", "sensitivity.csv", "per_image.parquet", "curves.parquet", "sweeps.parquet",
          "samples.parquet", "resamples.parquet", "faithfulness.parquet", "rules.json")  # fmt: skip
OWN = ("wsol", "torch", "torchvision", "timm", "transformers", "numpy", "functools", "builtins")
DEVICE = ("device", "torch")  # of an identity: what `mixed=true` lets differ
BEAT, SILENT = 2.0, 60.0  # seconds between two signs of life, and after which a process without one is lost
WAYS = ("resume", "overwrite", "mixed", "plan")  # to begin; they say nothing of a run
BEGAN = "began with"  # in identity.json: what was typed, which is no part of the identity
SMALL = 1 << 26  # bytes; the hashes of larger tables are not compared
BOX = ("x0", "y0", "x1", "y1")


def cut_shards(dataset: Dataset, images: int) -> list[range]:
    """Cut a dataset's samples, in their order, into shards of so many images; those of an image stay together."""
    ids, sample_ids = dataset.table["image_id"], dataset.table["sample_id"]
    if sample_ids.duplicated().any():
        repeated = sample_ids[sample_ids.duplicated()].iloc[0]
        raise UserError(f"sample id {repeated!r} comes more than once: sample ids must be unique")
    number = (ids != ids.shift()).cumsum().to_numpy() - 1 if dataset.multilabel else np.arange(len(ids))
    starts = [*np.flatnonzero(np.diff(number // images, prepend=-1)).tolist(), len(number)]
    return [range(start, end) for start, end in pairwise(starts)]


@dataclass(frozen=True, eq=False)
class Part:
    """What is kept of a shard: heatmaps and samples where a network ran, and each method's scores.

    `made` says how: device, forward passes, images that look dark, warnings.
    """

    store: HeatmapStore | None
    samples: pd.DataFrame | None
    scores: dict[str, ShardScores]
    faithfulness: pd.DataFrame | None = None
    made: dict[str, Any] = field(default_factory=dict)


class Shards:
    """The shards of a run, in memory or in its folder, which is locked until this context ends.

    Parameters
    ----------
    dataset, shard_size : Dataset, int
    identity : dict
        From `identity_of`: a resume must have the same.
    folder : Path, optional
    config, began : dict, str
        What was asked for, which is written there first, and what was typed; a resume knows it from there.
    resume, overwrite, mixed : bool
        What is done with an unfinished run that lies there; without either it is refused.
    command : str
        By which it is resumed.
    """

    def __init__(
        self,
        dataset: Dataset,
        shard_size: int,
        identity: dict[str, Any],
        folder: Path | str | None,
        config: Mapping[str, Any],
        began: str = "",
        *,
        resume: bool = False,
        overwrite: bool = False,
        mixed: bool = False,
        command: str = "wsol",
    ) -> None:
        self.ranges, self.identity = cut_shards(dataset, shard_size), identity
        self.folder, self.config, self.command = None if folder is None else Path(folder), config, command
        self.resume, self.overwrite, self.mixed, self.began = resume, overwrite, mixed, began
        self.rank, self.world = ranks()
        self.parts: dict[int, Part] = {}  # of a run without a folder
        self.warnings, self.kept = deque[str](), set[int]()  # since the last part; parts of this process
        self.advance: Callable[..., None] = lambda *_: None
        self.stopping, self.whole = threading.Event(), False  # whole: a resume finds that all is there
        if folder is None and self.world > 1:
            raise UserError("several processes share a run by its folder: pass the same run_dir to all")

    def __enter__(self) -> Self:
        if self.folder is None:
            self.done_before = set[int]()
            return self
        self.work = self.folder / "parts"
        if self.rank == 0:
            self._begin(self.folder)
        else:
            self._join_others(self.folder)
        self.done_before = {number for number in range(len(self.ranges)) if self.is_done(number)}
        logger.addFilter(self._hear)
        self._heart = threading.Thread(target=self._beat, daemon=True)
        self._heart.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stopping.set()
        if self.folder is None:
            return
        logger.removeFilter(self._hear)
        self._heart.join()
        if self.rank == 0:  # the others' signs say that they were here
            self._sign().unlink(missing_ok=True)
        if kind is not None and self.rank == 0 and not self.whole:
            done, of = sum(map(self.is_done, range(len(self.ranges)))), len(self.ranges)
            logger.warning("%d of %s done; go on with: %s resume=true run_dir=%s",
                           done, quantity(of, "shard"), self.command, self.folder)  # fmt: skip

    def _begin(self, folder: Path) -> None:
        """Take the lock; make sure that what lies there is of this very run, or away."""
        unfinished = self.work.is_dir() and not (folder / "run.json").is_file()
        if unfinished and not (self.resume or self.overwrite) and any(self.work.glob("[0-9]*")):
            raise UserError(
                f"run_dir={folder} holds an unfinished run: resume=true goes on with it, overwrite=true removes it"
            )
        if self.resume and not unfinished:
            if not (folder / "run.json").is_file() or read_json(folder / "run.json").get("identity") != self.key:
                raise UserError(f"run_dir={folder} holds no unfinished run, nor this one: leave resume=true out")
            self.whole = True
            if self.work.is_dir():  # it died between the last two of its steps
                self._take_lock()
                shutil.rmtree(self.work)
            return
        with writing(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
            self._take_lock()
        for sign in self.work.glob("rank-*.json"):
            sign.unlink()
        identity_file = self.work / "identity.json"
        if self.resume and identity_file.is_file():
            try:
                self.began = self._require_same(read_json(identity_file))
            except UserError:
                self._sign().unlink(missing_ok=True)
                raise
            return
        if (folder / "run.json").is_file():
            logger.warning("run_dir=%s holds a run of %s, which this one replaces",
                           folder, read_environment(folder).get("started", "an unknown time"))  # fmt: skip
        # An older run's heatmaps stay, which may be what is scored now, and its tables until ours take their place.
        for name in ("parts/identity.json", "run.json"):
            (folder / name).unlink(missing_ok=True)
        for path in self.work.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
        remove_stale(folder)
        write_yaml(folder / "config.yaml", {name: value for name, value in self.config.items() if name not in WAYS})
        write_json(identity_file, self.identity | {BEGAN: self.began})

    @property
    def key(self) -> str:
        """The identity in short; a finished run doesn't know into which shards it was cut."""
        content = {name: value for name, value in self.identity.items() if name != "shard_size"}
        return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()

    def _require_same(self, recorded: dict[str, Any]) -> str:
        """Refuse a run of another identity; return what was typed when it began."""
        began = str(recorded.pop(BEGAN, self.began))
        ours = json.loads(json.dumps(self.identity, default=str))
        differing = [name for name in {**recorded, **ours} if recorded.get(name) != ours.get(name)]
        if self.mixed:
            differing = [name for name in differing if name not in DEVICE]
        if differing:
            said = "; ".join(f"{name}: {recorded.get(name)}, now {ours.get(name)}" for name in differing[:5])
            hint = "; mixed=true goes on all the same" if set(differing) <= set(DEVICE) else ""
            raise UserError(f"run_dir={self.folder} can't be resumed, for it is of another run ({said}){hint}")
        return began

    def _sign(self) -> Path:
        """The file by which this process shows that it lives."""
        return self.work / ("lock.json" if self.rank == 0 else f"rank-{self.rank}.json")

    def _lock(self) -> str:
        """Whose run it is."""
        with suppress(OSError):
            return (self.work / "lock.json").read_text(encoding="utf-8")
        return ""

    def _take_lock(self) -> None:
        lock = self._sign()
        owner = {"host": socket.gethostname(), "pid": os.getpid()}
        while True:
            try:
                with lock.open("x", encoding="utf-8") as file:
                    json.dump(owner, file)
                return
            except FileExistsError:
                pass
            try:
                content = lock.read_text(encoding="utf-8")
                other = json.loads(content or "{}")
            except (OSError, ValueError):
                content, other = "", {}
            here = other.get("host") == owner["host"]
            if (here and is_alive(str(other.get("pid")))) or (not here and _lives(lock, SILENT)):
                raise UserError(
                    f"run_dir={self.folder} is being written to by process {other.get('pid')} on {other.get('host')}: "
                    f"wait for it, or choose another"
                )
            dead_lock = lock.with_name(f"lock.{os.getpid()}.dead")
            with suppress(OSError):  # whoever is first takes over
                lock.rename(dead_lock)
                if dead_lock.read_text(encoding="utf-8") != content:  # somebody else did, between these lines
                    dead_lock.rename(lock)
                dead_lock.unlink(missing_ok=True)

    def _join_others(self, folder: Path) -> None:
        """Wait until the first process has begun this very run; as long as the folder is another's, it isn't ours."""
        deadline = time.monotonic() + 10 * SILENT
        while time.monotonic() < deadline:
            if self.resume and (folder / "run.json").is_file():
                raise SystemExit(0)
            with suppress(OSError, UserError):
                self.first = self._lock()
                # A lock that changed hands is no beat: its new owner has yet to clear away what an earlier run left.
                if self.first and _lives(self.work / "lock.json", 3 * BEAT) and self._lock() == self.first:
                    self._require_same(read_json(self.work / "identity.json"))
                    self._sign().write_text("{}", encoding="utf-8")
                    return
            time.sleep(BEAT / 4)
        raise UserError(f"run_dir={self.folder}: process 0 of {self.world} has not begun this run")

    def _beat(self) -> None:
        while not self.stopping.wait(BEAT):
            with suppress(OSError):
                os.utime(self._sign())

    def _hear(self, record: logging.LogRecord) -> bool:
        """Warnings are kept with the shard: the process that joins says what others, or a killed one, met."""
        if record.levelno >= logging.WARNING:
            self.warnings.append(record.getMessage())
        return True

    @property
    def missing(self) -> list[int]:
        """Shards that this process has to do."""
        return [n for n in range(self.rank, len(self.ranges), self.world) if not self.is_done(n)]

    @property
    def missing_ranges(self) -> list[range]:
        """Their samples."""
        return [self.ranges[number] for number in self.missing]

    def is_done(self, number: int) -> bool:
        """Whether a shard was done, by whomever."""
        return number in self.parts or (self.folder is not None and (self.work / f"{number:06}").is_dir())

    @contextmanager
    def progress(self, description: str, show: bool) -> Iterator[Callable[..., None]]:
        """Say in one line how far all processes are: yields `advance(samples, note)` for this one's samples."""
        todo = {number for number in range(len(self.ranges)) if not self.is_done(number)}
        of_others, total = todo.difference(self.missing), sum(len(self.ranges[number]) for number in todo)
        with progress(description, total, show) as advance:

            def advance_all(steps: int = 1, note: str = "") -> None:
                done = {number for number in of_others if self.is_done(number)}
                of_others.difference_update(done)
                advance(steps + sum(len(self.ranges[number]) for number in done), note)

            self.advance = advance_all
            yield advance_all

    def do(
        self,
        recorded: Iterable[tuple[HeatmapStore, pd.DataFrame | None, pd.DataFrame | None, dict[str, Any]]],
        score: Callable[..., dict[str, ShardScores]],
        workers: int,
    ) -> None:
        """Score and keep each missing shard that `recorded` yields, while the next one is recorded."""
        pending = list[Future[None]]()

        def finish(number: int, store: HeatmapStore, samples: pd.DataFrame | None, *more: Any) -> None:
            scores = score(store, self.ranges[number], workers, self.stopping)
            self._keep(number, Part(None if samples is None else store, samples, scores, *more))

        with ThreadPoolExecutor(1) as behind:
            try:
                for number, of_shard in zip(self.missing, recorded, strict=True):
                    if pending:
                        pending.pop().result()
                    pending.append(behind.submit(finish, number, *of_shard))
                if pending:
                    pending.pop().result()
            except BaseException:
                self.stopping.set()  # the shard in hand is abandoned
                raise
        self._wait_for_others()

    def _keep(self, number: int, part: Part) -> None:
        self.kept.add(number)
        if self.folder is None:
            self.parts[number] = part
            return
        path = self.work / f"{number:06}"
        work = temporary_path(path)
        with writing(path), ExitStack() as undoing:
            work.mkdir()
            undoing.callback(shutil.rmtree, work, ignore_errors=True)
            _write_scores(part.scores, work)
            if part.store is not None and part.samples is not None:
                save_heatmaps([part.store], len(part.store.sample_ids), work / "heatmaps")
                part.samples.to_parquet(work / "samples.parquet", index=False)
            if part.faithfulness is not None:
                part.faithfulness.to_parquet(work / "faithfulness.parquet", index=False)
            warnings = [self.warnings.popleft() for _ in range(len(self.warnings))]
            made = part.made | {"warnings": warnings} | {name: self.identity.get(name) for name in DEVICE}
            write_json(work / "made.json", made)
            for file in work.iterdir():
                sync(file)
            if self.rank > 0 and self._lock() != self.first:  # what is there may be another run by now
                raise LostRankError(f"run_dir={self.folder}: process 0 of {self.world} has ended, and so does this one")
            work.rename(path)
            sync(self.work)

    def _wait_for_others(self) -> None:
        """As the first process, wait until all shards are done, and name a process that fell silent; others end."""
        if self.rank > 0:
            self.stopping.set()
            self._heart.join()
            raise SystemExit(0)
        last_signs: dict[int, tuple[float, float]] = {}  # the last sign of life of each, and when it was noticed
        # Also for one that is slow to begin and has nothing to do: it would look for the run in vain.
        unseen = set(range(1, self.world))
        while (todo := [n for n in range(len(self.ranges)) if not self.is_done(n)]) or unseen:
            self.advance(0)
            unseen = {rank for rank in unseen if not (self.work / f"rank-{rank}.json").is_file()}
            for rank in {n % self.world for n in todo} | unseen:
                path = self.work / f"rank-{rank}.json"
                sign = path.stat().st_mtime if path.is_file() else 0.0
                if rank not in last_signs or last_signs[rank][0] != sign:
                    last_signs[rank] = sign, time.monotonic()
                elif time.monotonic() - last_signs[rank][1] > SILENT:
                    unseen.discard(rank)
                    if rank not in {n % self.world for n in todo}:
                        continue
                    raise LostRankError(
                        f"process {rank} of {self.world} has given no sign of life for {SILENT:.0f} s; what is done is "
                        f"kept: {self.command} resume=true run_dir={self.folder}, with any number of processes"
                    )
            time.sleep(BEAT / 4)

    def _read(self, number: int) -> Part:
        if self.folder is None:
            return self.parts[number]
        path = self.work / f"{number:06}"
        store = HeatmapStore.open(path / "heatmaps") if (path / "heatmaps").is_dir() else None
        samples = pd.read_parquet(path / "samples.parquet") if store is not None else None
        values = path / "faithfulness.parquet"
        return Part(store, samples, {}, pd.read_parquet(values) if values.is_file() else None)

    def join_heatmaps(self) -> tuple[HeatmapStore, pd.DataFrame]:
        """Heatmaps and samples of all shards, one after the other: in memory, or in the run's folder."""
        parts = (self._read(number) for number in range(len(self.ranges)))
        stores = (part.store for part in parts if part.store is not None)
        tables = (self._read(number).samples for number in range(len(self.ranges)))
        table = pd.concat([samples for samples in tables if samples is not None], ignore_index=True)
        if self.folder is None:
            store = join_stores(list(stores))
        else:  # an older run's heatmaps, which lose their index, don't go with these samples
            (self.folder / "heatmaps" / "index.parquet").unlink(missing_ok=True)
            with atomic_write(self.folder / "samples.parquet") as path:  # not lost where what follows fails
                table.to_parquet(path, index=False)
            save_heatmaps(stores, self.ranges[-1].stop, self.folder / "heatmaps")
            store = HeatmapStore.open(self.folder / "heatmaps")
        if store.unreadable.any():
            ids = table["image_id"][store.unreadable].unique()
            failed = f"{len(ids)} of {table['image_id'].nunique()} images could not be read, or have no heatmap"
            logger.warning("%s, and count as misses: %s", failed, first_names(ids))
        return store, table

    def join_faithfulness(self) -> pd.DataFrame:
        """Faithfulness of all shards, one after the other."""
        parts = [self._read(number).faithfulness for number in range(len(self.ranges))]
        return pd.concat([part for part in parts if part is not None], ignore_index=True)

    def join_scores(self, scorer: Scorer, methods: Mapping[str, Mapping[str, str]]) -> Iterator[MethodScores]:
        """Read the scores of one method after the other, shard by shard."""
        for place, (method, about) in enumerate(methods.items()):
            numbers = range(len(self.ranges))
            of_shards = (_read_scores(self.work / f"{number:06}", place) if self.folder else
                         self.parts[number].scores[method] for number in numbers)  # fmt: skip
            yield scorer.join(method, about["layer"], of_shards)

    def how_made(self) -> tuple[list[str], dict[str, Any]]:
        """Images that look dark; and for `environment.json` this run's forward passes, and devices that differ.

        Repeats what other processes warned of.
        """
        numbers = range(len(self.ranges))
        made = [read_json(self.work / f"{n:06}" / "made.json") if self.folder else self.parts[n].made for n in numbers]
        for number in set(numbers) - self.kept:
            for warning in made[number].get("warnings", ()):
                logger.warning("%s", warning)
        devices = [{name: about.get(name) for name in DEVICE} for about in made]
        passes = sum(made[number].get("forward_passes", 0) for number in set(numbers) - self.done_before)
        shards = {"shards": devices} if any(device != devices[0] for device in devices) else {}
        return [image_id for about in made for image_id in about.get("dark", ())], {"forward_passes": passes} | shards

    def commit(self, results: Results) -> Results:
        """Say that the run is whole; its parts go."""
        if self.folder is None:
            return results
        tables = {name: _hash(self.folder / name) for name in TABLES if (self.folder / name).is_file()}
        arrays = {path.name: path.stat().st_size for path in sorted((self.folder / "heatmaps").glob("*.npy"))}
        content = {"format": FORMAT, "identity": self.key, "tables": tables, "heatmaps": arrays}
        write_json(self.folder / "run.json", content)
        self.stopping.set()
        self._heart.join()
        shutil.rmtree(self.work)
        return results


def _lives(sign: Path, seconds: float) -> bool:
    """Whether a sign of life changes within so many seconds."""
    with suppress(OSError):
        first, deadline = sign.stat().st_mtime_ns, time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(BEAT / 4)
            if sign.stat().st_mtime_ns != first:
                return True
    return False


def _hash(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def is_whole(folder: Path) -> bool:
    """Whether a folder holds a run that was finished, of any format."""
    old = not (folder / "parts").exists() and (folder / "environment.json").is_file()
    return (folder / "run.json").is_file() or old


def check_run(folder: Path) -> None:
    """Refuse a run that was not finished, or whose tables are no longer those that it was finished with."""
    if not is_whole(folder):
        raise UserError(
            f"{folder}: its run was interrupted or is still going on; wsol resume=true run_dir={folder} goes on with it"
        )
    if not (folder / "run.json").is_file():
        logger.warning("%s: a run of format 1, which doesn't say whether it is whole", folder)
        return
    with reading(folder / "run.json"):
        tables = read_json(folder / "run.json")["tables"].items()
        sizes = {folder / name: (about["size"], about) for name, about in tables}
    for path, (size, about) in sizes.items():
        same = path.is_file() and path.stat().st_size == size
        if not same or (size < SMALL and _hash(path) != about):
            raise UserError(f"{path} is not what the run wrote: copy it again, or make the run again")


SWEEP_PART = pa.schema({"sample": pa.int32(), "first": pa.int32(),
                        **dict.fromkeys((*BOX, "width", "height"), pa.int16())})  # fmt: skip


def _write_scores(scores: Mapping[str, ShardScores], folder: Path) -> None:
    """Write a shard's scores: a row group of sweeps for each method and rules, numbers, pixels per bin."""
    names = list(next(iter(scores.values())).sweeps) if scores else []
    write_json(folder / "scores.json", {"rules": names})
    with pq.ParquetWriter(folder / "sweeps.parquet", SWEEP_PART, compression="zstd") as writer:
        for of_method in scores.values():
            for packed in of_method.sweeps.values():
                boxes = np.where(packed.boxes[:, None] < 0, -1, unpack(packed.boxes)).astype(np.int16)
                columns = [packed.sample, packed.first, *boxes.T, *packed.sizes.T]
                writer.write_table(pa.Table.from_arrays([*map(pa.array, columns)], schema=SWEEP_PART),
                                   row_group_size=max(len(boxes), 1))  # fmt: skip
    pixels: dict[str, np.ndarray] = {}
    for number, of_method in enumerate(scores.values()):
        np.save(folder / f"numbers.{number}.npy", of_method.numbers)
        for name, (samples, histograms) in of_method.pixels.items():
            kind = np.uint16 if histograms.max(initial=0) < 1 << 16 else np.int64
            pixels |= {f"{number}/{name}/samples": samples, f"{number}/{name}/counts": histograms.astype(kind)}
    if pixels:
        np.savez_compressed(folder / "pixels.npz", **pixels)  # type: ignore[arg-type]


def _read_scores(folder: Path, number: int) -> ShardScores:
    """Read one method's scores, by its number."""
    names = read_json(folder / "scores.json")["rules"]
    sweeps: dict[str, PackedSweeps] = {}
    pixels: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    with pq.ParquetFile(folder / "sweeps.parquet") as file:
        for place, name in enumerate(names):
            columns = [column.to_numpy() for column in file.read_row_group(number * len(names) + place).columns]
            corners = np.stack(columns[2:6], axis=1).astype(np.int64)  # (R, 4)
            boxes = np.where(corners[:, 0] < 0, -1, (corners << np.array([48, 32, 16, 0])).sum(axis=1))
            sweeps[name] = PackedSweeps(columns[0], columns[1], boxes, np.stack(columns[6:], axis=1))
    if (folder / "pixels.npz").is_file():
        with np.load(folder / "pixels.npz") as arrays:
            for key in arrays.files:
                which, rest = key.split("/", 1)
                name, _, kind = rest.rpartition("/")
                if which == str(number) and kind == "samples":
                    pixels[name] = arrays[key], arrays[f"{number}/{name}/counts"].astype(np.int64)
    return ShardScores(sweeps, pixels, np.load(folder / f"numbers.{number}.npy"))


def identity_of(
    dataset: Dataset,
    protocols: Mapping[str, Protocol],
    methods: Mapping[str, Method],
    config: Mapping[str, Any],
    **more: Any,
) -> dict[str, Any]:
    """What makes a run what it is: only one that is equal in all of it is resumed."""
    functions: dict[str, Any] = {"dataset": type(dataset)} | {name: method.function for name, method in methods.items()}
    return {
        "dataset": [dataset.name, str(dataset.split), dict(dataset.knobs), list(dataset.classes)],
        "arguments": config.get("dataset"),
        "samples": _hash_table(dataset.table),
        "methods": {name: _describe(method) for name, method in methods.items()},
        "protocols": {name: asdict(protocol) for name, protocol in protocols.items()},
        "code": {name: _source(thing) for name, thing in functions.items() if not _is_known(thing)},
        "wsol": wsol.__version__,
        "numpy": version("numpy"),
        **more,
    }


def weights_of(classifier: Classifier) -> dict[str, Any]:
    """Hash of a network's weights, and of its code where it is somebody's own."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in classifier.module.state_dict().items():
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().data if values.numel() else b"")
    kinds = {type(module) for module in classifier.module.modules()}
    code = sorted(_source(kind) for kind in kinds if not _is_known(kind))
    return {"weights": digest.hexdigest(), "network": [type(classifier.module).__qualname__, *code]}


def _describe(method: Method) -> dict[str, Any]:
    function: Any = method.function
    options = getattr(function, "keywords", {})
    return {"function": method.function_name, "options": {name: str(value) for name, value in options.items()},
            "layer": method.layer, "fuse": method.fuse, "score": method.score}  # fmt: skip


def _is_known(thing: Any) -> bool:
    """Whether code belongs to a package whose version is known."""
    thing = getattr(thing, "func", thing)
    return isinstance(thing, str) or str(getattr(thing, "__module__", "")).split(".")[0] in OWN


def _source(thing: Any) -> str:
    thing = getattr(thing, "func", thing)
    try:
        return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()
    except (OSError, TypeError):  # typed in a shell: nothing but its name is known
        return str(getattr(thing, "__qualname__", thing))


def _hash_table(table: pd.DataFrame) -> str:
    """Hash ids, labels, sizes, boxes, and paths with the sizes of their files."""
    digest = hashlib.sha256()
    columns = ("sample_id", "image_id", "label", "width", "height", "boxes", "image", "mask", "ignore")
    for row in zip(*(table[name] for name in columns), strict=True):
        for value in row:
            if isinstance(value, Path):
                size = value.stat().st_size if value.is_file() else -1
                digest.update(f"{value} {size};".encode())
            else:
                digest.update(value.tobytes() if isinstance(value, np.ndarray) else f"{value};".encode())
    return digest.hexdigest()
