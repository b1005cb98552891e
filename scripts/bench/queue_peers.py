"""Our queue beside arq, saq, rq, dramatiq and BullMQ: jobs that do nothing, one worker process each, one Redis.

The peers are installed into a folder that is thrown away, each as its own documents say; one that cannot be installed is
named and left out. All run in turn, round by round, so that what else the machine does hits all alike. Prints a
Markdown table: rates are the best round (and the median); CPU is the median microseconds of one job; "ceiling" is what
one worker could reach if nothing but its CPU held it up. Exit code 0 when the whole path is at least level with the
fastest Python peer in claim + finish, or when none could be installed, else 1. Ctrl-C ends it after the last whole round.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import redis
from queue_cost import own_redis

PEERS = Path(__file__).parent / "peers"
PACKAGES = {
    "arq": ("arq",),
    "dramatiq": ("dramatiq[redis]",),
    "rq": ("rq",),
    "saq": ("saq[redis,hiredis]", "typing-extensions"),
}
SETTINGS = {
    "arq": "100 at once, poll 10 ms",
    "dramatiq-8": "8 threads",
    "dramatiq-1": "1 thread",
    "rq": "SimpleWorker",
    "saq": "10 at once",
}
ROUND_LIMIT_S = 300


@dataclass(frozen=True)
class Contender:
    """One row of the table."""

    name: str
    setting: str
    command: tuple[str, ...]
    """`{url}`, `{port}` and `{jobs}` are filled in."""
    folder: Path
    python_peer: bool = False


def install_python(folder: Path, name: str) -> str:
    """Make an environment with one queue; the Python of it."""
    python = str(folder / name / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(folder / name)], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[name]], check=True, stderr=subprocess.DEVNULL)
    return python


def python_peers(folder: Path) -> list[Contender]:
    """The peers written in Python that can be installed here."""
    found = []
    for name in PACKAGES:
        try:
            python = install_python(folder, name)
        except subprocess.CalledProcessError:
            print(f"left out: {name} cannot be installed", file=sys.stderr)
            continue
        show = f"from importlib.metadata import version; print(version({name!r}), version('redis'))"
        versions = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True).stdout.split()
        for key, said in SETTINGS.items():
            if key.split("-", maxsplit=1)[0] == name:
                setting = f"{said}; redis-py {versions[1]}"
                command = (python, str(PEERS / "python_peers.py"), key, "{url}", "{jobs}")
                found.append(Contender(f"{name} {versions[0]}", setting, command, folder, python_peer=True))
    return found


def bullmq(folder: Path) -> list[Contender]:
    """BullMQ, if node and npm are here."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        print("left out: bullmq, because node or npm is not installed", file=sys.stderr)
        return []
    home = folder / "bullmq"
    home.mkdir()
    try:
        install = [npm, "install", "--silent", "--no-audit", "--no-fund", "bullmq", "ioredis"]
        subprocess.run(install, cwd=home, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except subprocess.CalledProcessError:
        print("left out: bullmq cannot be installed", file=sys.stderr)
        return []
    version = json.loads((home / "node_modules/bullmq/package.json").read_text())["version"]
    return [
        Contender(
            f"bullmq {version}",
            f"{at_once} at once, prioritized",
            (node, str(PEERS / "bullmq.mjs"), str(at_once), "{port}", "{jobs}"),
            home,
        )
        for at_once in (1, 8)
    ]


def ours() -> list[Contender]:
    """Our index alone and our whole path, one job and eight jobs at a time."""
    settings = {
        ("index", "1"): "claim(1) + release, no rows",
        ("index", "8"): "claim(8) + release(8), no rows",
        ("whole", "1"): "dispatcher, rows, 1 slot: claim(1)",
        ("whole", "8"): "dispatcher, rows, 8 slots: claim(8)",
    }
    script = str(PEERS / "ours.py")
    return [
        Contender("ours", setting, (sys.executable, script, *what, "{url}", "{jobs}"), PEERS)
        for what, setting in settings.items()
    ]


def measure(contender: Contender, url: str, jobs: int) -> dict[str, float]:
    """One run over an emptied Redis."""
    with redis.Redis.from_url(url) as client:
        client.flushall()
    port = url.rsplit(":", maxsplit=1)[1].split("/", maxsplit=1)[0]
    command = [part.format(url=url, port=port, jobs=jobs) for part in contender.command]
    run = subprocess.run(
        command, cwd=contender.folder, capture_output=True, text=True, check=False, timeout=ROUND_LIMIT_S
    )
    if run.returncode != 0:
        raise SystemExit(f"{contender.name} ({contender.setting}) failed:\n{run.stderr}")
    figures: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return figures


def show(contenders: list[Contender], rounds: list[list[dict[str, float]]]) -> None:
    """Print the table."""
    print(
        "| queue | set-up | enqueue/s | CPU us client / Redis | claim + finish/s | CPU us worker / Redis | ceiling/s |"
    )
    print("| --- | --- | --: | --: | --: | --: | --: |")
    for contender, runs in zip(contenders, rounds, strict=True):

        def middle(key: str, runs: list[dict[str, float]] = runs) -> float:
            return statistics.median(run[key] for run in runs)

        cells = [contender.name, contender.setting]
        for what in ("submit", "run"):
            best = max(run[f"{what}_per_s"] for run in runs)
            cells.append(f"{best:.0f} ({middle(f'{what}_per_s'):.0f})")
            cells.append(f"{middle(f'{what}_cpu_us'):.0f} / {middle(f'{what}_redis_us'):.0f}")
        cells.append(f"{1e6 / middle('run_cpu_us'):.0f}")
        print("| " + " | ".join(cells) + " |")


def verdict(contenders: list[Contender], rounds: list[list[dict[str, float]]]) -> int:
    """Compare the median rates, and say how the ceilings compare; the exit code."""
    rate = {c: statistics.median(run["run_per_s"] for run in runs) for c, runs in zip(contenders, rounds, strict=True)}
    cpu = {c: statistics.median(run["run_cpu_us"] for run in runs) for c, runs in zip(contenders, rounds, strict=True)}
    peers = [contender for contender in contenders if contender.python_peer]
    if not peers:
        print("SKIP: no Python peer could be installed")
        return 0
    fastest, leanest, whole = max(peers, key=rate.__getitem__), min(peers, key=cpu.__getitem__), contenders[-1]
    level = rate[whole] >= rate[fastest]
    print(
        f"{'OK' if level else 'FAIL'}: our whole path runs {rate[whole] / rate[fastest]:.2f} x the jobs of the fastest"
        f" Python peer ({fastest.name}, {fastest.setting}); its ceiling is {cpu[leanest] / cpu[whole]:.2f} x that of the"
        f" leanest ({leanest.name}, {leanest.setting})"
    )
    return 0 if level else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dub-peers-") as folder, own_redis() as url:
        contenders = [*python_peers(Path(folder)), *bullmq(Path(folder)), *ours()]
        rounds: list[list[dict[str, float]]] = [[] for _ in contenders]
        for nth in range(options.rounds):
            try:
                figures = [measure(contender, url, options.jobs) for contender in contenders]
            except KeyboardInterrupt:
                break
            for runs, figure in zip(rounds, figures, strict=True):
                runs.append(figure)
            print(f"round {nth + 1} of {options.rounds} is done", file=sys.stderr)
        if not rounds[0]:
            return 1
        show(contenders, rounds)
        return verdict(contenders, rounds)


if __name__ == "__main__":
    sys.exit(main())
