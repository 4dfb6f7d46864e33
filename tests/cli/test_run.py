"""`h2log run`: an application from the folder where the person stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from h2log.server.certificates import Certificates
from tests.support import PATIENCE, client_context

WORKING = """
from h2log import App, HTTPError, Request, Response
import neighbour

app = App()

@app.get("/hello/{name}")
async def hello(request: Request) -> Response:
    return Response.text(f"{neighbour.GREETING} {request.params['name']}")

@app.get("/gone")
def gone(request: Request) -> Response:
    raise HTTPError(410, "it was here")

class holder:
    inner = app

number = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with modules, good and bad."""
    sources = {
        "working.py": WORKING,
        "neighbour.py": "GREETING = 'hello'\n",
        "syntax.py": "def broken(:\n    pass\n",
        "raising.py": "\n\nraise RuntimeError('no\\ndatabase')\n",
        "silent.py": "raise ValueError\n",
        "leaving.py": "raise SystemExit(3)\n",
        "calling_exit.py": "import sys\nsys.exit('bye')\n",
        "needing.py": "import a_module_that_is_not_there\n",
        "picking.py": "from neighbour import NOTHING\n",
        "nul.py": "a\0b\n",
        "latin.py": "app = '\udce9'\n",
        "apart/email.py": "app = None\n",
        "package/__init__.py": "",
        "package/inside.py": "from package import missing_part\n",
        "package/importing.py": "import package.absent\n",
    }
    for name, source in sources.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(source.encode("utf-8", "surrogateescape"))
    return tmp_path


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("working", ["'working' must be MODULE:ATTR"]),
        ("", ["must be MODULE:ATTR"]),
        (":app", ["':app' must be MODULE:ATTR"]),
        ("working:", ["'working:' must be MODULE:ATTR"]),
        ("nothing:app", ["no module 'nothing'"]),
        ("nothing.sub:app", ["no module 'nothing'"]),
        ("package.nothing:app", ["no module 'package.nothing'"]),
        ("working.sub:app", ["no module 'working.sub'"]),
        ("working:nothing", ["working has no attribute 'nothing'"]),
        ("working:app.nothing", ["has no attribute 'app.nothing'"]),
        ("working:a:b", ["has no attribute 'a:b'"]),
        ("working:number", ["working:number is int, expected an h2log.App"]),
        ("working:App", ["working:App is a class", "expected an h2log.App"]),
        ("working:hello", ["working:hello is an async function with the parameters (request)"]),
        ("syntax:app", ["cannot import syntax: SyntaxError", "/syntax.py, line 1)"]),
        ("raising:app", ["cannot import raising: RuntimeError: no", "raising.py, line 3"]),
        ("silent:app", ["cannot import silent: ValueError (/", "silent.py, line 1"]),
        ("leaving:app", ["cannot import leaving: SystemExit: 3", "leaving.py, line 1"]),
        ("calling_exit:app", ["cannot import calling_exit: SystemExit: bye"]),
        ("needing:app", ["cannot import needing", "a_module_that_is_not_there", "needing.py"]),
        ("picking:app", ["cannot import picking: ImportError", "NOTHING", "picking.py, line 1"]),
        ("nul:app", ["cannot import nul: "]),
        ("latin:app", ["cannot import latin: SyntaxError"]),
        ("package.inside:app", ["cannot import package.inside: ImportError", "missing_part"]),
        ("package.importing:app", ["package.absent", "importing.py, line 1"]),
        ("..:app", ["no module '..' here"]),
        ("a/b.py:app", ["with dots: a.b:app"]),
    ],
)
def test_a_mistake_is_one_line(folder: Path, target: str, words: list[str]) -> None:
    """It names the target and what is wrong with it, where, without a traceback; code 2."""
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", target, "--insecure", "--port", "0"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("h2log: ")
    assert [word for word in words if word not in line] == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_module_that_is_called_as_one_of_python_s(folder: Path, workers: str) -> None:
    """Which of the two was looked at, and the remedy; no process of ours takes the wrong one."""
    command = ["run", "email:app", "--app-dir", "apart", "--insecure", "--workers", workers]
    done = subprocess.run(
        [sys.executable, "-m", "h2log", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    [line] = done.stderr.splitlines()
    assert done.returncode == 2
    assert line.startswith("h2log: email has no attribute 'app'; it is another module (")
    assert line.endswith(f"email/__init__.py) than {folder / 'apart' / 'email.py'}: rename that")


def test_settings_come_through_a_pipe(folder: Path) -> None:
    """As from a shell's `--config <(…)`: they are read once."""
    end, begin = os.pipe()
    os.write(begin, b'[app]\ntarget = "absent:app"\n')
    os.close(begin)
    done = subprocess.run(
        [sys.executable, "-m", "h2log", "run", "--config", f"/dev/fd/{end}"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        pass_fds=[end],
    )
    os.close(end)
    assert done.returncode == 2
    assert done.stderr.startswith("h2log: no module 'absent' here;")


@pytest.mark.parametrize(
    ("command", "target"),
    [
        ([sys.executable, "-m", "h2log"], "working:app"),
        ([str(Path(sys.executable).with_name("h2log"))], "working:holder.inner"),
    ],
    ids=["module", "script"],
)
def test_an_application_answers(
    folder: Path, certs: Certificates, command: list[str], target: str
) -> None:
    """A module of the working directory, with its neighbours, over HTTPS."""
    if not Path(command[0]).exists():
        pytest.skip("the h2log script is not installed")
    arguments = [*command, "run", target, "--port", "0", "--access-log", "log"]
    arguments += ["--cert", str(certs.cert), "--key", str(certs.key)]
    with subprocess.Popen(
        arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            url = process.stdout.readline().strip()
            with httpx.Client(verify=client_context(certs), http2=True) as client:
                response = client.get(f"{url}/hello/you%2Fme")
                assert (response.status_code, response.text) == (200, "hello you/me")
                assert client.get(f"{url}/gone").status_code == 410
                assert client.get(f"{url}/").status_code == 404
            process.terminate()
            assert process.wait(PATIENCE) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()
    assert len((folder / "log").read_text().splitlines()) == 3
