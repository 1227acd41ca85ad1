"""First code of the zipapp: unpack tsfc once, and run it.

Python cannot load shared libraries from a zip file. So the archive in the zipapp is
unpacked into a directory, which becomes a virtual environment. Units start the program
in that directory, and do not need the zipapp.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

ARCHIVE = "tsfc.zip"
"Name in the zipapp of the archive with `lib/`."
OF_ROOT = "/usr/local/lib/tsfc"
"Directory of root's copies. The sandbox of the units never hides /usr."


def site_packages(prefix: str, version: Sequence[int]) -> str:
    """Return the directory of the libraries of a virtual environment.

    Args:
        prefix: directory of the virtual environment.
        version: of Python; the first two numbers count.
    """
    return f"{prefix}/lib/python{version[0]}.{version[1]}/site-packages"


def complete(directory: str, prefix: str, python: str) -> None:
    """Make a directory with `lib/` a virtual environment with the program `bin/tsfc`.

    Args:
        directory: its present path.
        prefix: its path when the program runs.
        python: path of the interpreter. Its name has the version, so that an upgrade
            of the host's Python does not replace it by one without these libraries.
    """
    os.mkdir(f"{directory}/bin")
    os.symlink(python, f"{directory}/bin/python3")
    _write(
        f"{directory}/pyvenv.cfg",
        f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n",
    )
    program = f"{directory}/bin/tsfc"
    _write(program, f"#!{prefix}/bin/python3 -I\nfrom tsfc.__main__ import entry\n\nentry()\n")
    os.chmod(program, 0o755)  # noqa: S103 - a program


def main(name: str, version: Sequence[int], machine: str) -> None:
    """Run tsfc, and exit.

    Args:
        name: of the directory to unpack into; no other content has the same name.
        version: of Python, two numbers; the libraries are for no other one.
        machine: as in uname(2); likewise.
    """
    found = (*sys.version_info[:2], os.uname().machine)
    if found != (*version, machine):
        sys.exit(
            "tsfc: this file is for Python {}.{} on {}, and this is {}.{} on {}; "
            "run it with another Python, or build another file with `make pyz`".format(
                *version, machine, *found
            )
        )
    prefix = f"{_home()}/{name}"
    if not os.path.isdir(prefix):
        _unpack(prefix)
    # What site.py does in a virtual environment.
    sys.prefix = sys.exec_prefix = prefix
    sys.executable = f"{prefix}/bin/python3"
    sys.path[0] = site_packages(prefix, version)
    from tsfc.__main__ import entry  # noqa: PLC0415 - found only now

    entry()


def _home() -> str:
    """Return the directory of the user's copies, one for each version of the file."""
    if os.geteuid() == 0:
        return OF_ROOT
    cache = os.environ.get("XDG_CACHE_HOME", "")
    return f"{cache if os.path.isabs(cache) else os.path.expanduser('~/.cache')}/tsfc"


def _unpack(prefix: str) -> None:
    """Unpack the archive into a new directory `prefix`, in one step."""
    import tempfile  # noqa: PLC0415 - the first run alone needs it
    import zipfile  # noqa: PLC0415 - likewise

    # The units have users of their own, who must be able to read the files.
    umask = os.umask(0o022)
    try:
        os.makedirs(os.path.dirname(prefix), exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".unpacking-", dir=os.path.dirname(prefix)
        ) as scratch:
            directory = f"{scratch}/tsfc"
            with (
                zipfile.ZipFile(sys.path[0]) as zipapp,
                zipapp.open(ARCHIVE) as inner,
                zipfile.ZipFile(inner) as archive,
            ):
                archive.extractall(directory)
            complete(directory, prefix, os.path.realpath(sys.executable))
            os.sync()  # Otherwise a crash could leave a directory of empty files.
            os.rename(directory, prefix)
    except (OSError, zipfile.BadZipFile) as error:
        if os.path.isdir(prefix):  # Another process was faster.
            return
        reason = error.strerror if isinstance(error, OSError) else error
        sys.exit(
            f"tsfc: unpacking into {prefix}: {reason}; "
            "check the file, the disk, and whether you may write there"
        )
    finally:
        os.umask(umask)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
