"""Measure: python -m tests.bench [NAME ...] [--quick]; --help lists the names. Without one: all of them."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from connexon.service import gc_tuning
from tests.bench import (
    audit,
    count,
    data,
    engine,
    fanout,
    firstask,
    limits,
    policy,
    release,
    start,
    training,
    usefulness,
)
from tests.bench.figures import Report, machine

BENCHES = {
    "start": start.measure,
    "count": count.measure,
    "engine": engine.measure,
    "limits": limits.measure,
    "data": data.measure,
    "policy": policy.measure,
    "release": release.measure,
    "firstask": firstask.measure,
    "usefulness": usefulness.measure,
    "audit": audit.measure,
    "fanout": fanout.measure,
    "training": training.measure,
}


def main() -> None:
    """Run the chosen measurements, print them, and write bench-TIME.json."""
    parser = argparse.ArgumentParser(description="Connexon's measurements")
    parser.add_argument("names", nargs="*", help=f"which: {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer runs and smaller data, to see that it works")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no measurement is called {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    # As in the processes that are measured.
    gc_tuning.look_less_often()
    report = Report(facts=machine())
    for name in options.names or BENCHES:
        BENCHES[name](report, quick=options.quick)
    report.print()
    path = Path(f"bench-{time.strftime('%Y%m%d-%H%M%S')}.json")
    report.write(path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()
