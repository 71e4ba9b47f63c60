"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

_SYNCS = 200
_LINE_BYTES = 637
_sync = getattr(os, "fdatasync", os.fsync)


class Machine(NamedTuple):
    """A machine as far as it matters here."""

    cpu: str
    cores: int
    system: str
    python: str
    filesystem: str
    sync_us: float

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores; {self.system}; Python {self.python}; "
            f"{self.filesystem}, append and sync of {_LINE_BYTES} bytes {self.sync_us:.0f} µs"
        )


def describe(folder: Path) -> Machine:
    """This machine, and the file system of a folder."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        filesystem=_filesystem(folder.resolve()),
        sync_us=_sync_us(folder),
    )


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the file system that holds a folder, where the system tells."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/self/mounts").read_text().splitlines()]
    except OSError:
        return "unknown file system"
    holding = [(point, kind) for point, kind in mounts if folder.is_relative_to(point)]
    return max(holding, key=lambda mount: len(mount[0]))[1] if holding else "unknown file system"


def _sync_us(folder: Path) -> float:
    seconds = []
    with tempfile.NamedTemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(_SYNCS):
            started = time.perf_counter()
            file.write(b"." * _LINE_BYTES)
            _sync(file.fileno())
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds) * 1e6
