"""What all tests share: Hypothesis profiles, the folder of measured data, and the rule about skipped tests."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
# `--hypothesis-profile` on the command line is read later and wins.
hypothesis.settings.load_profile("dev")

CHECKOUT = Path(__file__).resolve().parent.parent

# The parts that may be missing. A reason to skip says "needs" and one of them, or is pytest.importorskip's own.
OPTIONAL_PARTS = (
    "measured data",
    "CUDA",
    "the network",
    "gymnasium",
    "h5netcdf",
    "matplotlib",
    "minari",
    "pandas",
    "pooch",
    "scipy",
    "scoringrules",
)
ACCEPTED_REASON = re.compile(rf"\b(?:needs|could not import)\b.*(?:{'|'.join(OPTIONAL_PARTS)})", re.DOTALL)


def find_measured_data() -> Path | None:
    """Folder of measured data: BAYESWM_DATA where it is set, else `shared/data` beside the checkout."""
    named = os.environ.get("BAYESWM_DATA")
    if named:
        return Path(named)
    beside = CHECKOUT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


@pytest.fixture
def measured_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of measured data, which the library finds too; the test is skipped where there is none."""
    folder = find_measured_data()
    if folder is None:
        pytest.skip("needs the measured data: set BAYESWM_DATA, or put them into ../shared/data beside the checkout")
    if not folder.is_dir():
        pytest.fail(f"BAYESWM_DATA names {folder}, which is not a folder: correct it or unset it")
    monkeypatch.setenv("BAYESWM_DATA", str(folder))
    return folder


def refuse_unexplained_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure unless its reason names the optional part that is missing."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if ACCEPTED_REASON.search(reason) is None:
        report.outcome = "failed"
        report.longrepr = (
            f"skipped with {reason!r}; a reason to skip reads 'needs <part>', with one of: {', '.join(OPTIONAL_PARTS)}"
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    refuse_unexplained_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    refuse_unexplained_skip(report)
    return report
