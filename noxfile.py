"""What is done with a checkout: `nox -s demo`, `nox -s tests`, and so on; `nox --list` shows all.

Each session makes its own environment the first time and uses it again later. Core and plugins are always
installed by one pip command, together with `constraints.txt`, so that no public package of the same name is
fetched in their place. Arguments after `--` go to the command that the session runs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nox

ROOT = Path(__file__).parent
PLUGINS = {path.parent.name: path.parent for path in sorted((ROOT / "plugins").glob("*/pyproject.toml"))}
NEXT_HYDRA = ["hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1"]
TRITON = "triton==3.7.1"  # one version, so that what fails is a kernel
WHOLE = "test,datasets"  # datasets asks for a newer pyarrow than the core, so `lowest` goes without it
QUICK = "not slow and not faults_full"
LINK_INTO_CHECKOUT = re.compile(r"\[([^\]]+)\]\((?!\w+:|#)[^)]*\)")
ONLY_IN_CHECKOUT = {
    r" In a checkout:\n\n```sh\n[^`]*": f"\n\n```sh\npip install {' '.join(['bionemo-run', *PLUGINS])}\n",
    r"(?<=## From a bare machine\n\n)[\s\S]*?(?=\n`bionemo-run doctor`)": (
        "Python 3.11 to 3.13 with pip is enough:\n\n```sh\n"
        "python3 -m venv .venv && .venv/bin/pip install bionemo-run bionemo-esm\n"
        ".venv/bin/bionemo-run model=esm1nv_tiny trainer.max_steps=15\n```\n"
    ),
}
"""What the README says of a checkout, and what takes its place where it is read without one."""

nox.needs_version = ">=2025.2"
nox.options.sessions = ["tests"]
nox.options.reuse_venv = "yes"

if sys.version_info[:2] not in {(3, 11), (3, 12), (3, 13)}:
    raise SystemExit(f"noxfile: Python {sys.version.split()[0]} runs nox, expected 3.11 to 3.13: make .venv with one.")


@nox.session
def demo(session: nox.Session) -> None:
    """Train `esm1nv` for 15 steps on the proteins that ship with the core, and say where the run is."""
    _install(session, ["bionemo-esm"])
    home = Path(os.environ.get("BIONEMO_HOME", ROOT / "demo-home")).resolve()
    settings = [
        "name=demo",
        "batch.micro_batch_size=1",
        "scheduler.warmup_steps=5",
        "scheduler.constant_steps=0",
        "trainer.max_steps=15",
        "trainer.log_every_n_steps=1",
    ]
    session.run("bionemo-run", "model=esm1nv", *settings, *session.posargs, env={"BIONEMO_HOME": str(home)})
    runs = sorted((home / "runs" / "demo").glob("*/metrics.csv"))
    if not runs:
        session.error(f"no run was left in {home / 'runs' / 'demo'}")
    session.log(f"The run is in {runs[-1].parent}")


@nox.session(default=False)
def quick(session: nox.Session) -> None:
    """Run the unit tests that start no processes: under two minutes, for every change."""
    _install(session, PLUGINS, extra=WHOLE)
    _pytest(session, f"{QUICK} and not processes", "tests/unit")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests but the slow ones."""
    _install(session, PLUGINS, extra=WHOLE)
    _pytest(session, QUICK)


@nox.session(default=False)
def slow(session: nox.Session) -> None:
    """Run what is too slow for every change: the slow tests, and more cases of the fault matrix."""
    _install(session, PLUGINS, extra=WHOLE)
    session.install("-c", "constraints.txt", *_requirements("hydra-submitit-launcher"))
    _pytest(session, "slow or faults and not faults_full", BIONEMO_FAULTS="subset")


@nox.session(default=False, python="3.11")
def lowest(session: nox.Session) -> None:
    """Run the quick tests with the lowest version of every dependency that pyproject.toml admits, on the lowest Python.

    Of torch it takes the version in constraints.txt: earlier ones are on the index for CUDA only, gigabytes large.
    """
    pins = ["torch" + _pinned("torch"), *_lowest_versions()]
    _run_quickly(session, pins)


@nox.session(default=False, python="3.13")
def highest(session: nox.Session) -> None:
    """Run the quick tests with the highest version of every dependency that pyproject.toml admits, without our pins."""
    _run_quickly(session, [], "--upgrade", "--upgrade-strategy", "eager")


@nox.session(default=False)
def hydra14(session: nox.Session) -> None:
    """Run what composes configurations with the release candidates of Hydra 1.4 and OmegaConf 2.4."""
    _install(session, PLUGINS, extra="test")
    session.install("--no-deps", *NEXT_HYDRA)
    folders = ["tests/unit/cli", "tests/unit/config", "tests/unit/plugins", "tests/contract"]
    with _seclusion() as env:
        session.run("pytest", "-n", "2", *folders, "tests/e2e/test_start_up.py", *session.posargs, env=env)
        settings = ["trainer.max_steps=3", "batch.micro_batch_size=1", "scheduler.warmup_steps=1"]
        session.run("bionemo-run", "model=esm1nv_tiny", *settings, env=env)


@nox.session(venv_backend="none")
def kernels(session: nox.Session) -> None:
    """Compile the GPU kernels and compare what they compute with torch, on a CPU; needs Linux, and no GPU."""
    python = _python_of_tests(session)
    # Triton lies in a folder of its own, because other tests ask for what torch does without it.
    folder = ROOT / ".nox" / TRITON
    if not folder.is_dir():
        session.run(*python, "pip", "install", "--quiet", "--no-deps", "--target", str(folder), TRITON)
    with _seclusion() as env:
        for mode in ("0", "1"):
            variables = {**env, "PYTHONPATH": str(folder), "TRITON_INTERPRET": mode}
            variables["TRITON_CACHE_DIR"] = f"{env['TMPDIR']}/triton"
            session.run(*python, "pytest", "-n", "2", "-m", QUICK, "tests/kernels", *session.posargs, env=variables)


@nox.session(default=False)
def coverage(session: nox.Session) -> None:
    """Run the same tests and show which lines none of them reaches."""
    _install(session, PLUGINS, extra=WHOLE)
    with _seclusion() as env:
        session.run("coverage", "erase")
        session.run(
            "coverage", "run", "-m", "pytest", "-n", "2", "--dist", "worksteal", "-m", QUICK, *session.posargs, env=env
        )
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format with ruff, and the Containerfile; `nox -s lint -- --fix` mends what it can."""
    session.install("-c", "constraints.txt", *_requirements("ruff", "hadolint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--check"]), ".")
    session.run("hadolint", "Containerfile")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types with mypy: strictly in plugins, config, data and examples."""
    python = _python_of_tests(session)
    session.run(*python, "pip", "install", "--quiet", "-c", "constraints.txt", *_requirements("mypy"))
    packages = ["bionemo_core", *(name.replace("-", "_") for name in PLUGINS)]
    examples = [path.stem for path in sorted((ROOT / "examples").glob("*.py"))]
    chosen = [*(("-p", package) for package in packages), *(("-m", example) for example in examples)]
    session.run(*python, "mypy", *(argument for pair in chosen for argument in pair), *session.posargs)


@nox.session
def layers(session: nox.Session) -> None:
    """Check that upper layers import lower ones only, the core no plugin, and a plugin only what is public."""
    session.install("-c", "constraints.txt", *_requirements("import-linter"))
    session.run(
        "lint-imports", *session.posargs, env={"PYTHONPATH": os.pathsep.join(map(str, [ROOT, *PLUGINS.values()]))}
    )


@nox.session(default=False)
@nox.parametrize("plugin", [nox.param(name, id=name) for name in ["core", *PLUGINS]])
def alone(session: nox.Session, plugin: str) -> None:
    """Install the core with one plugin, or the core alone, and check that it works and says what is missing."""
    with _seclusion() as env:
        if plugin != "core":
            _install(session, [plugin], extra="test")
            session.run("bionemo-run", "plugins", env=env)
            session.run("pytest", "-q", "-m", QUICK, f"plugins/{plugin}/tests", *session.posargs, env=env)
            return
        _install(session, [])
        session.run("bionemo-run", "plugins", env=env)
        session.run("bionemo-run", "doctor", env=env)
        said = session.run("bionemo-run", "model=esm1nv", success_codes=[2], silent=True, env=env)
        session.log(f"`bionemo-run model=esm1nv` leaves with status 2 and says: {said}")
        if "Install a plugin" not in str(said):
            session.error("it does not say what to do")


@nox.session(default=False, reuse_venv=False)  # bare each time: what an earlier call installed is in the way
def wheels(session: nox.Session) -> None:
    """Build every distribution as it could be uploaded, check it, install all from a folder and follow the READMEs.

    `-- DIR` keeps what was built in DIR.
    """
    session.install("-c", "constraints.txt", *_requirements("build", "twine", "pytest>"))
    with _seclusion() as env, tempfile.TemporaryDirectory() as folder:
        built, work, public = Path(folder) / "dist", Path(folder) / "work", Path(folder) / "public"
        work.mkdir()
        version = _write_public_copy(public)
        for project in (public, *(public / path.relative_to(ROOT) for path in PLUGINS.values())):
            session.run("python", "-m", "build", "--outdir", str(built), str(project), silent=True)
        session.run("twine", "check", "--strict", *map(str, sorted(built.iterdir())))
        _check_metadata(session, built, version)
        wanted = [f"{name}=={version}" for name in ("bionemo-run", *PLUGINS)]
        # First ours, from the folder alone; then what they need. A package of the same name on an index never comes.
        session.install("--no-deps", "--force-reinstall", "--no-index", "--find-links", str(built), *wanted)
        session.install("-c", str(ROOT / "constraints.txt"), *wanted)
        session.run("pip", "check")
        if session.posargs:
            shutil.copytree(built, session.posargs[0], dirs_exist_ok=True)
        session.chdir(work)
        settings = ["trainer.max_steps=3", "batch.micro_batch_size=1", "scheduler.warmup_steps=1"]
        session.run("bionemo-run", "model=esm1nv_tiny", *settings, env=env)
        # As on the machine of an author, where no variable says how many threads there are.
        theirs = {**env, "OMP_NUM_THREADS": None, "MKL_NUM_THREADS": None}
        for kind in ("tokenizer", "model"):
            session.run("bionemo-run", "new-plugin", f"wheel-{kind}", "--kind", kind, env=theirs)
            session.install(f"./bionemo-wheel-{kind}")
        session.run("bionemo-run", "check-plugin", "wheel-tokenizer", env=theirs)
        session.run("pytest", "bionemo-wheel-model", env=theirs)
        session.run("bionemo-run", "model=esm1nv_tiny", "tokenizer=wheel_tokenizer", *settings, env=theirs)


@nox.session(default=False)
def site(session: nox.Session) -> None:
    """Build the site of the documentation into build/site; a dead link fails. `-- serve` shows it while you write."""
    session.install("-c", "constraints.txt", *_requirements("mkdocs", "ruff"))
    session.run("mkdocs", *(session.posargs or ["build", "--clean"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmarks that need no GPU: `benchmarks/bench_*.py`, without those that end in `_gpu`."""
    _install(session, PLUGINS, extra="test")
    scripts = [path for path in sorted((ROOT / "benchmarks").glob("bench_*.py")) if not path.stem.endswith("_gpu")]
    with _seclusion() as env:
        # A benchmark may use every core; it says itself how many threads it takes.
        alone = {name: value for name, value in env.items() if not name.endswith("_NUM_THREADS")}
        for script in scripts:
            if not session.posargs or script.stem in session.posargs:
                session.run("python", str(script), env=alone)


@nox.session(default=False)
def faults(session: nox.Session) -> None:
    """Run the whole fault matrix, for hours; BIONEMO_FAULTS_R1=5 sets the N of one row, `-- -k c1` chooses rows."""
    _install(session, PLUGINS, extra="test")
    report = ROOT / "fault-matrix.json"
    with _seclusion() as env:
        wanted = {"BIONEMO_FAULTS": "full", "BIONEMO_FAULTS_REPORT": str(report)}
        session.run("pytest", "tests/faults", "--timeout", "0", *session.posargs, env={**env, **wanted})
    session.log(f"The rows are in {report}")


@nox.session(default=False)
def mutants(session: nox.Session) -> None:
    """Break the code on purpose, break by break, and check that tests notice; `-- resume` chooses an area or a name."""
    _install(session, PLUGINS, extra=WHOLE)
    with _seclusion() as env:
        session.run("python", "tests/mutants/run_breaks.py", *session.posargs, env=env)


def _install(
    session: nox.Session, plugins: Sequence[str] | dict[str, Path], *, extra: str = "", also: Sequence[str] = ()
) -> None:
    """Install the core and these plugins in one pip command."""
    editable = [f".[{extra}]" if extra else ".", *(str(PLUGINS[name].relative_to(ROOT)) for name in plugins)]
    arguments = [argument for path in editable for argument in ("-e", path)]
    # Compiling what is never imported would take a third of the time.
    session.install("--no-compile", "-c", "constraints.txt", *arguments, *also)


def _pytest(session: nox.Session, markers: str, *folders: str, **variables: str) -> None:
    with _seclusion() as env:
        arguments = ["-n", "2", "--dist", "worksteal", "-m", markers, *folders, *session.posargs]
        session.run("pytest", *arguments, env={**env, **variables})


def _python_of_tests(session: nox.Session) -> tuple[str, str]:
    """Return the start of a command in the environment of `tests`, which is made first if there is none.

    Sessions that need all of core, plugins and torch share it, so that they are installed once.
    """
    python = ROOT / ".nox" / "tests" / "bin" / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "nox", "-s", "tests", "--install-only")
    return str(python), "-m"


def _run_quickly(session: nox.Session, pins: Sequence[str], *choice: str) -> None:
    """Install everything within the pins, in one pip command, and run the tests of `quick`.

    A warning is no failure here: old packages use what new ones deprecate.
    """
    with _seclusion() as env, tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(pins) + "\n")
        constraints.flush()
        editable = [".[test]", *(str(path.relative_to(ROOT)) for path in PLUGINS.values())]
        arguments = [argument for path in editable for argument in ("-e", path)]
        session.install(*choice, "-c", constraints.name, *arguments)
        session.run("pip", "list", "--format", "freeze")
        options = ["-n", "2", "--dist", "worksteal", "-o", "filterwarnings=default"]
        markers = f"{QUICK} and not processes"
        session.run("pytest", *options, "-m", markers, "tests/unit", *session.posargs, env=env)


def _lowest_versions() -> list[str]:
    """Return a pin for each requirement of the core, its tests and the plugins, at the bound in its pyproject.toml."""
    lines: list[str] = []
    for path in (ROOT, *PLUGINS.values()):
        project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
        extras = project.get("optional-dependencies", {})
        lines += [*project["dependencies"], *(line for name, own in extras.items() if name != "dev" for line in own)]
    found = [re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?>=([\d.]+)(?:,.*)?", line) for line in lines]
    bounds: dict[str, str] = {}
    for name, version in (one.groups() for one in found if one):
        # Of a package that two of ours require, the higher bound.
        bounds[name] = max(bounds.get(name, "0"), version, key=lambda text: [*map(int, text.split("."))])
    return [f"{name}=={version}" for name, version in sorted(bounds.items()) if name not in {"torch", *PLUGINS}]


def _pinned(name: str) -> str:
    """Return the version of a package in constraints.txt, as `==VERSION`."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.removeprefix(name) for line in lines if line.startswith(f"{name}=="))


def _requirements(*names: str) -> list[str]:
    """The requirements of these tools as pyproject.toml bounds them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    lines = dict.fromkeys(line for extra in extras.values() for line in extra)
    return [line for line in lines if line.startswith(names)]


def _write_public_copy(folder: Path) -> str:
    """Copy the checkout with metadata that an index accepts and READMEs that stand alone, and return the version.

    In a checkout the version is local (`+src`) and plugins require exactly that, because an index cannot hold it: pip
    never fetches a foreign core beside a plugin of the checkout.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    local = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    version = local.partition("+")[0]
    major, minor = map(int, version.split(".")[:2])
    plugins = [folder / path.relative_to(ROOT) / "pyproject.toml" for path in PLUGINS.values()]
    for path in (folder / "pyproject.toml", folder / "bionemo_core/_version.py", *plugins):
        text = path.read_text().replace(f"bionemo-run=={local}", f"bionemo-run>={major}.{minor},<{major}.{minor + 1}")
        path.write_text(text.replace(local, version).replace('    "Private :: Do Not Upload",\n', ""))
    for path in folder.rglob("README.md"):
        path.write_text(LINK_INTO_CHECKOUT.sub(r"\1", path.read_text()))
    (folder / "README.md").write_text(without_checkout((folder / "README.md").read_text()))
    return version


def without_checkout(page: str) -> str:
    """Return the README for those who have installed packages from an index.

    Raises:
        ValueError: a passage about a checkout is not there, or another one is.
    """
    for passage, instead in ONLY_IN_CHECKOUT.items():
        page, number = re.subn(passage, instead, page)
        if number != 1:
            raise ValueError(f"README.md: {number} places are like {passage!r}, expected one.")
    if left := re.findall(r".*(?:checkout|constraints\.txt|nox -s demo|nox -s tests).*", page):
        raise ValueError(f"README.md: {left[0]!r} cannot be followed without a checkout.")
    return page


def _check_metadata(session: nox.Session, built: Path, version: str) -> None:
    """Check that each wheel has its licence, a public version, and no requirement that an index cannot meet."""
    for wheel in sorted(built.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            text = archive.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
        faults = [
            *([] if any(name.endswith("licenses/LICENSE") for name in names) else ["no LICENSE"]),
            *([] if f"\nVersion: {version}\n" in text else ["another version"]),
            *(word for word in ("+src", "Do Not Upload", "file://") if word in text.partition("\n\n")[0]),
            *(link.group() for link in LINK_INTO_CHECKOUT.finditer(text.partition("\n\n")[2])),
        ]
        if faults:
            session.error(f"{wheel.name}: {', '.join(faults)}")


@contextmanager
def _seclusion() -> Iterator[dict[str, str | None]]:
    """Variables for tests: a short temporary folder of their own, no network, no account of the user's.

    One thread a process: two test workers fit two cores, and sums come out the same everywhere.
    """
    with tempfile.TemporaryDirectory(prefix="bionemo-", ignore_cleanup_errors=True) as folder:
        yield {
            "TMPDIR": folder,
            "BIONEMO_HOME": str(Path(folder) / "home"),
            "BIONEMO_LOAD_PLUGINS": None,
            "BIONEMO_BLOCK_PLUGINS": None,
            "PYTHONPATH": None,
            "PYTHONDONTWRITEBYTECODE": None,  # else each of the many processes would compile our sources anew
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "MPLBACKEND": "Agg",
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "offline",
            "WANDB_API_KEY": None,
        }
