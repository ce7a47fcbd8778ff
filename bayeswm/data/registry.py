"""Where measured data come from, and how their files get here: a folder or the network, always checked."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from bayeswm.base.errors import DataError, SpecError
from bayeswm.data.optional import need

FOLDER = "BAYESWM_DATA"

_RAW = "https://raw.githubusercontent.com"
_DFKI = (
    f"{_RAW}/dfki-ric-underactuated-lab/torque_limited_simple_pendulum/ed17ea2d32a35ad944944ca03ef57693e2986732/results"
)
_SACHS = f"{_RAW}/cmu-phil/example-causal-datasets/a23adc349a23fc34d258193b45c60522ca6355b4/real/sachs"
_IDENT = f"{_RAW}/forgi86/pytorch-ident/f00d79ff8c6cb96d094d9ea1c079d4dcbf9a67e0/examples/statespace/silverbox"


@dataclass(frozen=True)
class File:
    """One file: its name here, its SHA-256, and its address; None where the public original has another form."""

    name: str
    sha256: str
    address: str | None = None


@dataclass(frozen=True)
class Source:
    """A measured data set: who made it, on what terms, and its files."""

    title: str
    origin: str
    licence: str
    citation: str
    files: tuple[File, ...]


def _pendulum(name: str, path: str, sha256: str) -> File:
    return File(f"{name}.csv", sha256, f"{_DFKI}/control_method_{path}.csv")


SOURCES: dict[str, Source] = {
    "dfki_simple_pendulum": Source(
        title="Real torque-limited pendulum on a quasi-direct drive, nine runs",
        origin="github.com/dfki-ric-underactuated-lab/torque_limited_simple_pendulum, folder results",
        licence="BSD-3-Clause",
        citation="Wiebe et al. (2022), Torque-limited simple pendulum: a toolkit for getting familiar with control "
        "algorithms in underactuated robotics, Journal of Open Source Software 7(74), 3884, doi:10.21105/joss.03884",
        files=(
            _pendulum("ddp", "ddp/data_measured", "14748fd189abae7b6392a016f2f0494b54bb2a8c014bc435a84b58dbecb2da35"),
            _pendulum(
                "direct_collocation",
                "direct_collocation/data_measured",
                "c3f990980169815b93ab37078780e13803327dcb6fc9e019f2d261b988cdaf8f",
            ),
            _pendulum(
                "energy_shaping",
                "energy_shaping/data_measured",
                "e1844e56f87cf763bdecb3f6f7e5b622a9a3b2d71e907b48ed6148b0a059c209",
            ),
            _pendulum(
                "energy_shaping_1kg",
                "energy_shaping/data_measured_1kg",
                "61d782d4797500fb2e7f42b4ad80c8c694e5e5ebdf5862535acb94a475b950d2",
            ),
            _pendulum(
                "gravity_compensation",
                "gravity_compensation/data_measured",
                "1d15acddde86dbe513418bc964cfac8230c3d2afa4d088a2ba9fd94b68da0c78",
            ),
            _pendulum("ilqr", "ilqr/data_measured", "f678b8650c167b04476be244f1b2d807d3e0949c5d7b7fa58522164bdcad0afe"),
            _pendulum(
                "pd_swingup_failure",
                "pd/1nm_torque_limited_swingup_failure/data_measured",
                "e127d443853f937fa41d6000c71a6ec85c51406f193711806c1fc36a06c9c24a",
            ),
            _pendulum(
                "pd_system_identification",
                "pd/system_identification/data_measured",
                "3a5728e9c5530dd9066c0d7fda4c6a9bf50d86f94538629ace6d2508a7053469",
            ),
            _pendulum("sac", "sac/data_measured", "e2bfed62046a1bfdbfc8ff5322afd54acbf10521a683668c30ee39b241ea20d9"),
        ),
    ),
    "contactnets_cube": Source(
        title="400 real tosses of a rigid cube onto a table",
        # the original is one torch file for each toss; columns 0..12 of the first 400, cast to float32, equal this file
        origin="github.com/DAIRLab/contact-nets at c3dc21c94577ff4ed99123f0b00bfe57bb2d1d90, "
        "data/tosses_processed/0.pt to 399.pt: columns 0 to 12 in float32, one after the other, and their lengths",
        licence="BSD-3-Clause",
        citation="Pfrommer, Halm and Posa (2020), ContactNets: learning discontinuous contact dynamics with smooth, "
        "implicit representations, Conference on Robot Learning",
        files=(File("tosses_000_399.npz", "ad9f2335e56dafa0050355cac9a81af7a471dad403f33dc2b4993280a3b2baf7"),),
    ),
    "silverbox": Source(
        title="Silverbox: an electronic Duffing oscillator",
        origin="github.com/forgi86/pytorch-ident, examples/statespace/silverbox/SilverboxFiles",
        licence="MIT (the repository)",
        citation="Wigren and Schoukens (2013), Three free data sets for development and benchmarking in nonlinear "
        "system identification, European Control Conference",
        files=(
            File(
                "SNLS80mV.csv",
                "ae62d5a91230c10f76e6dd02c8a4fac3c9d4d8a95fbf50e87cb0c4885003e0f1",
                f"{_IDENT}/SilverboxFiles/SNLS80mV.csv",
            ),
        ),
    ),
    "delan_characters": Source(
        title="Two-link arm that draws 20 letters (simulated)",
        # the original is a pickle, which can run code when it is loaded: this library never does
        origin="github.com/milutter/deep_lagrangian_networks at 18a943d07fa25193c52d239b5fb2478900d4259a, "
        "data/character_data.pickle: labels, qp, qv, qa, tau, m, c and g of all letters one after the other, in "
        "NumPy's format, with the number of rows of each letter",
        licence="MIT",
        citation="Lutter, Ritter and Peters (2019), Deep Lagrangian networks: using physics as model prior for deep "
        "learning, International Conference on Learning Representations",
        files=(File("characters.npz", "aba9e9ddd896b916a0cc500a689fc70684e00e8bd13798d6e9faaae119fd9c5e"),),
    ),
    "sachs": Source(
        title="Protein signalling in single human T cells under seven conditions",
        # the original adds jitter to the 0 and 1 of the reagents; rounded, and without psitect and ly, it is this file
        origin="github.com/cmu-phil/example-causal-datasets at a23adc349a23fc34d258193b45c60522ca6355b4, "
        "real/sachs/data/sachs.2005.with.jittered.experimental.continuous.txt: reagents rounded to 0 or 1, without the "
        "cells that were given psitect or ly and without these two columns, comma-separated",
        licence="CC0-1.0",
        citation="Sachs, Perez, Pe'er, Lauffenburger and Nolan (2005), Causal protein-signaling networks derived from "
        "multiparameter single-cell data, Science 308(5721), 523-529, doi:10.1126/science.1105809",
        files=(
            File("sachs_conditions.csv", "1f534c363120f3917b6b0e2fc7b79623117999deee8e56235e4439f749f057b4"),
            File(
                "consensus_graph.txt",
                "2406ec0f9cd34bcbcd33fb74282386232330a630dba68c0f2d01a0d985a652b9",
                f"{_SACHS}/ground.truth/sachs.2005.ground.truth.graph.txt",
            ),
        ),
    ),
}


def source(name: str) -> Source:
    """Return what is known about a measured data set: origin, licence, citation, files.

    Raises
    ------
    SpecError
        For a name that is not registered, with the closest ones.

    Examples
    --------
    >>> source("silverbox").files[0].name
    'SNLS80mV.csv'
    """
    if name not in SOURCES:
        close = difflib.get_close_matches(str(name), SOURCES, n=2)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise SpecError(f"expected one of {', '.join(SOURCES)}, got {name!r}{hint}")
    return SOURCES[name]


def measured_file(name: str, file: str) -> Path:
    """Return the path of one file of a measured data set, checked against its SHA-256.

    Read from the folder of the data set's name in the folder that the environment variable ``BAYESWM_DATA`` names;
    without the variable downloaded once by pooch.

    Parameters
    ----------
    name : str
        Data set.
    file : str
        Name of the file.

    Raises
    ------
    SpecError
        For a data set or file that is not registered.
    DataError
        If the file is absent, cannot be downloaded, or is not the registered one (naming it).
    ImportError
        If pooch is missing and needed.

    Examples
    --------
    >>> measured_file("silverbox", "V1.csv")
    Traceback (most recent call last):
        ...
    bayeswm.base.errors.SpecError: expected a file of 'silverbox' (SNLS80mV.csv), got 'V1.csv'
    """
    entry = source(name)
    known = {f.name: f for f in entry.files}
    if file not in known:
        raise SpecError(f"expected a file of {name!r} ({', '.join(known)}), got {file!r}")
    folder = os.environ.get(FOLDER)
    path = _download(name, known[file]) if not folder else Path(folder).expanduser() / name / file
    if not path.is_file():
        raise DataError(f"expected the file {name}/{file} in the folder that {FOLDER} names ({folder}), got none there")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != known[file].sha256:
        raise DataError(
            f"{path}: expected the registered file with SHA-256 {known[file].sha256}, got {found}; "
            "it is damaged or another version: replace it"
        )
    return path


def _download(name: str, file: File) -> Path:
    if file.address is None:
        raise DataError(
            f"expected {FOLDER} to name a folder that holds {name}/{file.name}, got no such variable; set it: this "
            f"file cannot be downloaded, it was made from {SOURCES[name].origin}"
        )
    pooch = need("pooch", "io")
    cache = Path(pooch.os_cache("bayeswm")) / name
    try:
        return Path(pooch.retrieve(file.address, known_hash=f"sha256:{file.sha256}", fname=file.name, path=cache))
    except ValueError as error:
        raise DataError(
            f"{file.address}: expected the registered file {name}/{file.name}, got another: {error}"
        ) from None
    except OSError as error:  # what requests raises is one too
        raise DataError(
            f"expected to download {file.address}, got {type(error).__name__}: {error}; set {FOLDER} to a folder that "
            f"holds {name}/{file.name}"
        ) from error
