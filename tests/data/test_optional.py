"""A missing optional package is named together with the extra that brings it."""

import sys

import pytest

from bayeswm.data.optional import need


@pytest.mark.parametrize(("package", "extra"), [("gymnasium", "rl"), ("minari", "io"), ("pooch", "io")])
def test_missing_package_names_the_extra(package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}'.*bayeswm\[{extra}\]"):
        need(package, extra)


def test_a_package_that_is_broken_inside_says_what_it_misses(tmp_path, monkeypatch):
    (tmp_path / "half_a_package.py").write_text("import surely_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="surely_not_there"):
        need("half_a_package", "io")


def test_importing_the_data_functions_imports_no_optional_package():
    import subprocess

    code = (
        "import sys, bayeswm.data.collect, bayeswm.data.dataframe, bayeswm.data.measured, bayeswm.data.minari;"
        "print([m for m in ('gymnasium', 'minari', 'pandas', 'pooch', 'xarray', 'h5py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
