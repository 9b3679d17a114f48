"""A benchmark that is killed leaves no server running."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

SERVER = "import signal; print('ready', flush=True); signal.pause()"
BENCHMARK = """
import signal, sys
from pathlib import Path
from tests.bench.guard import guarded
with guarded(Path(sys.argv[1])):
    print('ready', flush=True)
    signal.pause()
"""


def test_servers_end_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    data = tmp_path / "bench" / "servers" / "one" / "data"
    data.mkdir(parents=True)
    server = subprocess.Popen([sys.executable, "-c", SERVER], cwd=data, stdout=subprocess.PIPE)
    (data / "postmaster.pid").write_text(f"{server.pid}\n{data}\n")
    command = [sys.executable, "-c", BENCHMARK, str(tmp_path / "bench")]
    benchmark = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        for process in (server, benchmark):
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.stdout.close()
        watched = os.pidfd_open(server.pid)
        try:
            assert select.select([watched], [], [], 0)[0] == []
            benchmark.send_signal(signal.SIGKILL)
            assert select.select([watched], [], [], 120)[0]
        finally:
            os.close(watched)
    finally:
        for process in (server, benchmark):
            process.kill()
            process.wait()
