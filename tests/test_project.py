"""The project's own promises: pinned dependencies, explained skips, every target listed."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def setup_environment():
    spec = importlib.util.spec_from_file_location("setup_environment", ROOT / "tools" / "setup_environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def test_pins_are_names_and_versions_only_and_sorted():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) is None] == []
    assert lines == sorted(lines, key=str.lower)
    assert len(pins()) == len(lines)


def test_each_requirement_has_a_pin_that_satisfies_it(setup_environment):
    wanted = [Requirement(text) for text in setup_environment.requirements("dev")]
    # One of each kind: the project's own, an extra's, and the tools'.
    assert {"torch", "matplotlib", "pytest"} <= {each.name for each in wanted}
    assert "bayeswm" not in {each.name for each in wanted}
    pinned = pins()
    assert [str(each) for each in wanted if not each.specifier.contains(pinned[canonicalize_name(each.name)])] == []


def test_environment_is_named_after_its_requirements(setup_environment):
    wanted = setup_environment.requirements("dev")
    assert setup_environment.key(wanted) == setup_environment.key(list(wanted))
    assert setup_environment.key(wanted) != setup_environment.key([*wanted, "one-more"])


def test_interrupted_environment_is_not_taken_for_finished(setup_environment, tmp_path):
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.touch()
    assert not setup_environment.marked(tmp_path, "this")
    setup_environment.mark(tmp_path, "this")
    assert setup_environment.marked(tmp_path, "this")
    assert not setup_environment.marked(tmp_path, "that")
    python.unlink()
    assert not setup_environment.marked(tmp_path, "this")


def test_make_alone_lists_every_target():
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory"], capture_output=True, text=True, check=True)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    assert listed == ["setup", "demo", "test", "slow", "lint", "types", "docs", "notebooks", "bench"]


def test_skip_without_a_missing_part_fails(pytester):
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makepyfile(
        """
        import pytest

        def test_unexplained():
            pytest.skip("later")

        @pytest.mark.skipif(True, reason="needs matplotlib")
        def test_explained():
            pass

        def test_importorskip():
            pytest.importorskip("pandas_of_another_name")
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, skipped=2)
    result.stdout.fnmatch_lines(["*skipped with*later*needs <part>*"])
