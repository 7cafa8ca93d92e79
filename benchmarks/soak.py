"""Kill runs at random and look whether anything was lost: two launchers on one results folder, kill -9 of parents, of
single workers and of whole process groups, then a full disk and a worker that hangs.

    python benchmarks/soak.py [--kills 100] [--seeds 29] [--minutes 60]     # writes benchmarks/soak.json

The jobs are LMF with every mixer on generated data, one epoch on a tenth of the clips: 7 mixers x --seeds. They run once
undisturbed. Then two launchers share a second folder; a killed one is started again, and when all jobs have ended before
the kills have, the next round starts in a new folder. After every kill each result that was ever done must still be done,
byte by byte the undisturbed one. After the last resume of a round all jobs are done, none failed, no process and no
temporary file is left. --minutes ends the killing early; the record says how many kills there were.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
from bench import index  # noqa: E402

FILES = ("job.json", "metrics.json", "history.csv", "predictions.npz")
HOW = ("parent", "worker", "group")
PATIENCE = 60.0  # seconds that a launcher may take until a worker of its has a job
FEW = 3  # seeds of the jobs on a full disk, and beside a job that hangs


@dataclass
class Soak:
    """One disturbed run and what was seen of it."""

    work: Path
    only: str = "synthetic-mosi/lmf+*"
    seeds: int = 29
    seed: int = 0
    kills: Counter = field(default_factory=Counter)
    starts: int = 0
    looks: int = 0
    lost: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    workers: set[int] = field(default_factory=set)
    rounds: list[dict[str, int]] = field(default_factory=list)

    def command(self, results: Path, workers: int, *more: str) -> list[str]:
        return [
            sys.executable, "-m", "bench", "run", "msmix-t1", "--only", self.only, "--seeds", str(self.seeds), "--set",
            "train.max_epochs=1", "--set", "fraction=0.1", "--workers", str(workers), "--results", str(results), *more,
        ]

    def start(self, results: Path, workers: int = 1, *more: str) -> subprocess.Popen:
        """A launcher in a process group of its own."""
        self.starts += 1
        log = open(self.work / f"launcher-{self.starts}.log", "wb")
        with log:
            return subprocess.Popen(
                self.command(results, workers, *more), cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )

    def finish(self, results: Path, workers: int = 2, *more: str) -> int:
        p = self.start(results, workers, *more)
        code = p.wait()
        self.last = (self.work / f"launcher-{self.starts}.log").read_text(errors="replace")
        return code

    def undisturbed(self, there: Path | None) -> None:
        if there is None:
            there = self.work / "undisturbed"
            assert self.finish(there) == 0, self.last
        self.reference = {j: files for j, files in stored(there).items() if int(j.rpartition("-s")[2]) < 1111 + self.seeds}

    def look(self, results: Path, known: dict[str, bytes]) -> None:
        """Everything done so far is still done, and as it was in the undisturbed run."""
        self.looks += 1
        now = {p.parent.name: p.read_bytes() for p in done(results)}
        self.lost += [job for job in known if job not in now]
        self.changed += [job for job, content in now.items() if content != self.reference[job]["metrics.json"]]
        known.update(now)

    def round(self, results: Path, kills: int, draw: random.Random, pause: tuple[float, float], end: float) -> None:
        """Kill until all is done, the kills are used up or the time is; then resume once and look at everything."""
        known: dict[str, bytes] = {}
        before = sum(self.kills.values())
        launchers = [self.start(results), self.start(results)]
        while len(known) + len(failed(results)) < len(self.reference) and sum(self.kills.values()) < kills and time.monotonic() < end:
            launchers = [p if p.poll() is None else self.start(results) for p in launchers]
            victim = draw.choice(launchers)
            self.wait_for_work(victim, results, min(end, time.monotonic() + PATIENCE))
            time.sleep(draw.uniform(*pause))
            self.look(results, known)
            self.kill(victim, draw.choice(HOW))
            self.look(results, known)
        for p in launchers:
            p.kill()
            p.wait()
        self.rounds.append({"kills": sum(self.kills.values()) - before, "done_before_the_last_resume": len(known),
                            "killed_twice": len(failed(results))})
        self.resume(results)
        self.look(results, known)
        self.changed += [j for j, files in stored(results).items() if files != self.reference[j]]
        self.lost += [j for j in self.reference if j not in stored(results)]

    def rounds_of(self, kills: int, draw: random.Random, pause: tuple[float, float], end: float) -> Iterator[list[Path]]:
        """Rounds in new folders until that many were killed; after each, the folders so far."""
        folders: list[Path] = []
        while sum(self.kills.values()) < kills and time.monotonic() < end:
            folders.append(self.work / f"round-{len(folders)}")
            self.round(folders[-1], kills, draw, pause, end)
            yield folders

    def wait_for_work(self, launcher: subprocess.Popen, results: Path, end: float) -> None:
        """Until a worker of the launcher has a job: a kill before that disturbs nothing, however busy the machine is."""
        while time.monotonic() < end and launcher.poll() is None:
            if set(children(launcher.pid)) & owners(results):
                return
            time.sleep(0.1)

    def resume(self, results: Path) -> None:
        """The last start: whatever was killed twice while it was its worker's is a failure until it is tried again."""
        assert self.finish(results, 2, "--retry-failed") == 0, self.last

    def kill(self, launcher: subprocess.Popen, how: str) -> None:
        workers = children(launcher.pid)
        self.workers |= set(workers)
        if launcher.poll() is not None or how == "worker" and not workers:
            return  # it has ended in the meantime
        if how == "worker":
            os.kill(random.Random(sum(self.kills.values())).choice(workers), signal.SIGKILL)
        elif how == "parent":
            launcher.kill()
        else:
            os.killpg(launcher.pid, signal.SIGKILL)
        self.kills[how] += 1

    def left(self, *folders: Path) -> dict[str, list[str]]:
        """Processes and files that should not be there."""
        end = time.monotonic() + 15
        while (alive := [p for p in self.workers if running(p)]) and time.monotonic() < end:
            time.sleep(0.2)
        hidden = [str(p.relative_to(self.work)) for f in folders for p in f.rglob(".*") if p.name != index.NAME]  # the index stays
        not_done = [str(p.relative_to(self.work)) for f in folders for p in failed(f)]
        return {"processes": [str(p) for p in alive], "temporary_files": hidden, "failed_jobs": not_done}


def done(results: Path) -> list[Path]:
    return [p for p in results.glob("*/*/*/metrics.json") if not p.parent.name.startswith(".")]


def failed(results: Path) -> list[Path]:
    """Jobs whose worker was killed twice: theirs is a failure until it is tried again, as the last resume does."""
    return [p for p in results.glob("*/*/*/failed.json") if not (p.parent / "metrics.json").exists()]


def stored(results: Path) -> dict[str, dict[str, bytes]]:
    """Job -> the files that a repeated run writes byte by byte alike."""
    return {p.parent.name: {n: (p.parent / n).read_bytes() for n in FILES} for p in done(results)}


def owners(results: Path) -> set[int]:
    """Processes that have a job."""
    found = set()
    for lock in results.glob("*/*/.*.lock"):
        try:
            found.add(json.loads(lock.read_text())["pid"])
        except (OSError, ValueError, KeyError):
            continue
    return found


def children(pid: int) -> list[int]:
    """Processes below a launcher (Linux): workers, and the one that they are forked from."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
        except (OSError, ValueError, IndexError):
            continue
    return sorted(found)


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def full_disk(soak: Soak, size: str = "1m") -> dict[str, object]:
    """A results folder that is full (a small tmpfs, where this user may mount one), and the same with room again."""
    folder = soak.work / "full"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True).returncode:
        return {"run": False, "why": "mounting a small file system needs rights that this user has not"}
    try:
        ballast = folder / "ballast"
        with open(ballast, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(4096))
            except OSError:
                pass
        with open(ballast, "r+b") as f:
            f.truncate(max(0, ballast.stat().st_size - 64 * 1024))  # room for a few results, then none
        code, said = soak.finish(folder / "results"), soak.last
        kept = {p.parent.name for p in done(folder / "results")}
        damaged = [j for j in kept if stored(folder / "results")[j] != soak.reference[j]]
        hidden = [str(p) for p in folder.rglob(".*") if p.name != index.NAME]
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=200m", folder], check=True)
        again = soak.finish(folder / "results")
        same = stored(folder / "results") == soak.reference
        return {
            "run": True, "exit_code_while_full": code, "says_disk_full": "disk full" in said, "traceback": "Traceback" in said,
            "done_while_full": len(kept), "damaged": damaged, "temporary_files": hidden,
            "exit_code_with_room": again, "identical_with_room": same,
        }
    finally:
        subprocess.run(["umount", folder])


def hung_job(soak: Soak, timeout: float = 60.0) -> dict[str, object]:
    """A worker that is stopped in mid-job, under a time limit that it can no longer keep itself."""
    results = soak.work / "hung"
    p = soak.start(results, 1, "--timeout", str(timeout))
    while not (at_work := owners(results) & set(children(p.pid))):  # not the process that workers are forked from
        time.sleep(0.02)
    (worker,) = at_work
    soak.workers.add(worker)
    os.kill(worker, signal.SIGSTOP)
    began = time.monotonic()
    code = p.wait()
    errors = [json.loads(f.read_text())["error"] for f in results.rglob("failed.json")]
    others = len(done(results))
    again = soak.finish(results, 2, "--timeout", str(2 * timeout))
    return {
        "timeout_seconds": timeout, "exit_code": code, "failed": errors, "others_done": others,
        "seconds": round(time.monotonic() - began), "exit_code_of_the_next_run": again,
        "identical_after_it": stored(results) == soak.reference,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=29)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--pause", type=float, nargs=2, default=(0.0, 4.0), help="seconds from a worker's first sign of work to the kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--undisturbed", type=Path, metavar="DIR", help="results of an earlier undisturbed run of the same jobs")
    parser.add_argument("--only", choices=["kills", "faults"], help="one part; the other is kept as --out has it")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    args = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    try:
        soak = Soak(work, seeds=args.seeds, seed=args.seed)
        soak.undisturbed(args.undisturbed)
        print(f"undisturbed: {len(soak.reference)} jobs in {time.monotonic() - began:.0f} s", flush=True)
        record = json.loads(args.out.read_text()) if args.only and args.out.exists() else {}
        record |= {
            "machine": f"{os.cpu_count()}-core {platform.machine()}", "python": platform.python_version(),
            "load": os.getloadavg(), "jobs_per_round": len(soak.reference), "launchers_at_once": 2, "seed": args.seed,
            "kills_asked": args.kills,
        }

        def note(**more: object) -> None:
            record.update(more, **{f"seconds_of_{args.only or 'all'}": round(time.monotonic() - began)})
            args.out.write_text(json.dumps(record, indent=1) + "\n")
            print(json.dumps(more), flush=True)

        few = Soak(work, seeds=FEW, starts=100_000)
        few.reference = {j: files for j, files in soak.reference.items() if int(j.rpartition("-s")[2]) < 1111 + FEW}
        if args.only != "kills":
            note(full_disk={"jobs": len(few.reference), **full_disk(few)})
            note(hung_job={"jobs": len(few.reference), **hung_job(few)})
        if args.only == "faults":
            return
        end = time.monotonic() + 60 * args.minutes
        for folders in soak.rounds_of(args.kills, random.Random(args.seed), tuple(args.pause), end):
            note(
                kills=dict(soak.kills), rounds=soak.rounds, launchers_started=soak.starts, looks=soak.looks, lost=soak.lost,
                not_identical=soak.changed, left_behind=soak.left(*folders),
            )
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
