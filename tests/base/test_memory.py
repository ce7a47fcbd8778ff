from pathlib import Path

import pytest

from bayeswm.base.memory import available_memory


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="ascii")
    return root


MEMINFO = {"proc/meminfo": "MemTotal:  8000 kB\nMemFree:  1000 kB\nMemAvailable:  5000 kB\n"}
V2 = {
    "proc/self/cgroup": "0::/jobs/one\n",
    "sys/fs/cgroup/jobs/memory.max": "3000000\n",
    "sys/fs/cgroup/jobs/memory.current": "1000000\n",
    "sys/fs/cgroup/jobs/memory.stat": "anon 700000\ninactive_file 250000\n",
    "sys/fs/cgroup/jobs/one/memory.max": "max\n",
    "sys/fs/cgroup/jobs/one/memory.current": "900000\n",
}
V1 = {
    "proc/self/cgroup": "5:cpu,memory:/a\n4:pids:/b\n",
    "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "2000000\n",
    "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "1500000\n",
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MEMINFO, 5_120_000),
        ({**MEMINFO, **V2}, 2_250_000),
        ({**MEMINFO, **V1}, 500_000),
        ({**V1, "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "2500000\n"}, 0),
        ({**MEMINFO, "proc/self/cgroup": "0::/\n"}, 5_120_000),
    ],
)
def test_what_the_system_and_its_limits_leave(files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert available_memory(root=system(tmp_path, files)) == expected


def test_all_memory_counts_where_nothing_can_be_read(tmp_path: Path) -> None:
    left = available_memory(root=tmp_path)
    assert left is None or left > 10**8


def test_cuda_counts_what_torch_keeps_for_reuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 9000))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda device: 700)
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda device: 200)
    assert available_memory("cuda") == 1500
    assert available_memory("meta") is None
