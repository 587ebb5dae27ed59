#!/usr/bin/env python3
"""Runs the targets of cargo-fuzz and says what became of them: `make fuzz`.

Each target has its share of the time. What makes a difference is kept in target/fuzz/corpus, so that the next run begins
where this one ended; a target that fails leaves its input in target/fuzz/failed and the command that plays it again. A
target stops at its first failure: it would find the same again and again.
"""

import argparse
import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "target/fuzz"
# For one input, in seconds; and of memory for one target.
PATIENCE, MOST_MIB = 20, 2048
CARGO_FUZZ = "0.13.2"


def cargo_fuzz(*words, **more):
    """cargo-fuzz on whatever toolchain there is: without a sanitizer it needs no nightly."""
    tools = HERE / "tools/bin"
    # Quiet, since cargo wonders each time that all targets have one source.
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "CARGO_TERM_QUIET": "true"}
    found = subprocess.run(["cargo", "fuzz", "--version"], env=environment, capture_output=True, check=False)
    if found.returncode != 0:
        print(f"installing cargo-fuzz {CARGO_FUZZ} into {tools}", flush=True)
        # It only calls cargo: unoptimised it is there sooner.
        install = ["cargo", "install", "--locked", "--quiet", "--debug", f"cargo-fuzz@{CARGO_FUZZ}"]
        install += ["--root", str(HERE / "tools")]
        subprocess.run(install, check=True, cwd=ROOT)
    command = ["cargo", "fuzz", words[0], "--fuzz-dir", "tests/fuzz", *words[1:]]
    return subprocess.run(command, check=True, cwd=ROOT, env=environment, **more)


def program(name):
    """Where the built target is: below the folder of the machine's triple."""
    found = list((HERE / "build").glob(f"*/release/{name}"))
    return max(found, key=lambda path: path.stat().st_mtime)


def run(name, seconds, seed):
    """Feeds one target; gives what it said of itself."""
    corpus, failed = HERE / "corpus" / name, HERE / "failed"
    corpus.mkdir(parents=True, exist_ok=True)
    failed.mkdir(parents=True, exist_ok=True)
    prepared = subprocess.run(
        [program(name)],
        env={**os.environ, "ANMIN_FUZZ_PREPARE": str(corpus)},
        cwd=ROOT, check=True, capture_output=True, text=True,
    )
    began = time.monotonic()
    flags = {
        "max_total_time": max(1, round(seconds)), "max_len": int(prepared.stdout), "seed": seed,
        "timeout": PATIENCE, "rss_limit_mb": MOST_MIB, "report_slow_units": PATIENCE, "print_final_stats": 1,
        "dict": f"{corpus}.dict", "artifact_prefix": f"{failed}/{name}-", "reduce_inputs": 1,
    }
    ran = subprocess.run(
        [program(name), *(f"-{flag}={value}" for flag, value in flags.items()), str(corpus)],
        cwd=ROOT, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        env={"RUST_BACKTRACE": "1", **os.environ},
    )
    (HERE / "logs").mkdir(exist_ok=True)
    (HERE / f"logs/{name}.log").write_text(ran.stderr)
    return said(name, ran, time.monotonic() - began)


def said(name, ran, seconds):
    """The figures in what libFuzzer writes; a line of it begins with the number of executions."""
    lines = re.findall(r"^#(\d+)\t.*?cov: (\d+) ft: \d+ corp: (\d+)/", ran.stderr, re.M)
    count, coverage, corpus = (int(word) for word in lines[-1]) if lines else (0, 0, 0)
    final = re.search(r"stat::number_of_executed_units:\s*(\d+)", ran.stderr)
    slowest = max((int(word) for word in re.findall(r"^slowest: (\d+) us", ran.stderr, re.M)), default=0)
    memory = re.search(r"stat::peak_rss_mb:\s*(\d+)", ran.stderr)
    failure = None
    if ran.returncode != 0:
        kept = re.search(r"Test unit written to (\S+)", ran.stderr)
        why = re.search(r"^\w+ panics: (.*(?:\n.*)?)|^(?:==\d+== ?)?(?:ERROR|SUMMARY).*", ran.stderr, re.M)
        why = why.group(0).strip() if why else f"ended with {ran.returncode}"
        again = f"make fuzz TARGET={name} INPUT={os.path.relpath(kept.group(1), ROOT)}" if kept else \
            f"see target/fuzz/logs/{name}.log"
        failure = f"{why}\n    {again}"
    return {
        "name": name, "count": max(count, int(final.group(1)) if final else 0), "coverage": coverage, "corpus": corpus,
        "slowest": slowest, "memory": int(memory.group(1)) if memory else 0, "seconds": seconds, "failure": failure,
    }


def line(one):
    rate = one["count"] / max(one["seconds"], 0.001)
    slowest = f"{one['slowest'] / 1000:.0f} ms" if one["slowest"] else "under 2 ms"
    return (f"{one['name']:15} {one['count']:>12,} executions {rate:>9,.0f}/s  corpus {one['corpus']:>6,}  coverage "
            f"{one['coverage']:>6,}  slowest {slowest:>10}  {one['memory']:>5} MiB  {'FAILS' if one['failure'] else 'ok'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="for all targets together")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--target", action="append", help="one of `cargo fuzz list`; may be said again")
    parser.add_argument("--seed", type=int, default=0, help="of libFuzzer; 0: another each time")
    parser.add_argument("--input", help="play this one input instead")
    asked = parser.parse_args()

    listed = cargo_fuzz("list", capture_output=True, text=True).stdout.split()
    targets = asked.target or listed
    unknown = [name for name in targets if name not in listed]
    if unknown or (asked.input and len(targets) != 1):
        sys.exit(f"one of {', '.join(listed)}" + (f", not {', '.join(unknown)}" if unknown else ""))
    one = [targets[0]] if len(targets) == 1 else []
    print("building, which takes some minutes when much is new", flush=True)
    # Coverage alone leads the way, and needs no nightly; debug assertions and overflow checks are in the profile.
    cargo_fuzz("build", "--sanitizer", "none", "--target-dir", str(HERE / "build"), *one)
    if asked.input:
        played = subprocess.run(
            [program(targets[0]), f"-timeout={PATIENCE}", asked.input],
            cwd=ROOT, env={"RUST_BACKTRACE": "1", **os.environ}, check=False)
        sys.exit(played.returncode)

    workers = max(1, min(asked.workers, len(targets)))
    share = asked.minutes * 60 * workers / len(targets)
    print(f"{len(targets)} targets, {share:.0f} s each, {workers} at once", flush=True)
    done, lock = [], threading.Lock()

    def turn(name):
        one = run(name, share, asked.seed)
        with lock:
            done.append(one)
            print(line(one), flush=True)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(turn, targets))
    print(f"{sum(one['count'] for one in done):,} executions in all")
    failures = [one for one in done if one["failure"]]
    for one in failures:
        print(f"{one['name']}: {one['failure']}")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
