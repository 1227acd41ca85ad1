from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.processes import error_lines, run
from tsfc.units.directories import changeable_parent, way_out

USER = 61000
METRICS = "/var/lib/alloy"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")


@dataclass(frozen=True)
class Directory:
    """Owner, group and mode of a directory."""

    owner: int = 0
    group: int = 0
    mode: int = 0o755


Tree = dict[str, Directory | str]
"Directories, and links with their targets, by path."


def build(root: Path, tree: Tree) -> None:
    root.mkdir()
    for path, entry in tree.items():
        place = root / path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        match entry:
            case str():
                place.symlink_to(entry)
            case Directory(owner, group, mode):
                place.mkdir(exist_ok=True)
                os.chown(place, owner, group)
                place.chmod(mode)


SAFE: dict[str, Tree] = {
    "missing": {},
    "of root": {METRICS: Directory()},
    "of a user": {METRICS: Directory(USER, USER, 0o700)},
    "writable by all": {METRICS: Directory(mode=0o777)},
    "in a directory of group root": {"/var/lib": Directory(mode=0o775)},
    "of a dynamic user": {
        "/var/lib/private": Directory(mode=0o700),
        "/var/lib/private/alloy": Directory(USER),
        METRICS: "private/alloy",
    },
    "behind an absolute link": {
        "/data": Directory(),
        "/data/alloy": Directory(USER),
        METRICS: "/data/../data/./alloy",
    },
    "a link to nothing": {METRICS: "/nonexistent/alloy"},
    "a loop of links": {METRICS: "alloy"},
}
"Metrics directories, by description."


@root_only
@pytest.mark.parametrize("tree", SAFE.values(), ids=SAFE)
def test_a_directory_below_directories_of_root_is_safe(box: Path, tree: Tree) -> None:
    """Whoever owns the directory itself."""
    build(box / "root", tree)
    assert changeable_parent(METRICS, str(box / "root")) is None


UNSAFE: dict[str, tuple[str, Tree]] = {
    "of a user": ("/var/lib", {"/var/lib": Directory(USER)}),
    "of a user, further up": ("/var", {"/var": Directory(USER)}),
    "the root": ("/", {"/": Directory(USER)}),
    "writable by all": ("/var/lib", {"/var/lib": Directory(mode=0o757)}),
    "sticky": ("/var/lib", {"/var/lib": Directory(mode=0o1777)}),
    "writable by a group": ("/var/lib", {"/var/lib": Directory(group=USER, mode=0o775)}),
    "of a user, behind a link": (
        "/home/me",
        {"/home/me": Directory(USER), METRICS: "../../home/me/alloy"},
    ),
    "of a user, below a link": ("/data/lib", {"/data/lib": Directory(USER), "/var": "data"}),
    "of a user, between two links": (
        "/home/me",
        {
            "/data/alloy": Directory(),
            "/home/me": Directory(USER),
            "/home/me/alloy": "/data/alloy",
            METRICS: "/home/me/alloy",
        },
    ),
}
"The directory that a user may change, and the tree, by description."


@root_only
@pytest.mark.parametrize(("parent", "tree"), UNSAFE.values(), ids=UNSAFE)
def test_a_directory_below_one_that_a_user_may_change_is_unsafe(
    box: Path, parent: str, tree: Tree
) -> None:
    """The user could replace the directory by a link to any other."""
    build(box / "root", tree)
    assert changeable_parent(METRICS, str(box / "root")) == parent


@pytest.mark.parametrize("is_absolute", [True, False], ids=["absolute", "relative"])
@pytest.mark.parametrize("place", ["etc", "etc/systemd", "etc/systemd/system", "etc/tmpfiles.d"])
def test_nothing_is_installed_or_removed_through_a_link_out_of_the_root(
    box: Path, place: str, *, is_absolute: bool
) -> None:
    """An image may have such links; they are meant for the system that it becomes."""
    root, outside = box / "root", box / "outside"
    outside.mkdir()
    path = root / place
    path.parent.mkdir(parents=True)
    path.symlink_to(outside if is_absolute else os.path.relpath(outside, path.parent))
    for action, verb in (("install", "installing"), ("uninstall", "removing")):
        ran = run("units", f"--{action}", "--root", str(root), "--package", "/opt/tsfc")
        assert (ran.status, ran.stdout) == (1, "")
        (complaint,) = error_lines("units", ran)
        assert complaint.startswith(f"{verb} the units in {path}")
        assert f": links lead to {outside}" in complaint
        assert complaint.endswith(
            f", which is not below {root}; remove the link. Nothing was changed"
        )
    assert list(outside.iterdir()) == []


def test_a_link_within_the_root_is_followed(box: Path) -> None:
    root = box / "root"
    (root / "usr/etc").mkdir(parents=True)
    (root / "etc").symlink_to("usr/etc")
    ran = run("units", "--install", "--root", str(root), "--package", "/opt/tsfc", "exporter")
    assert (ran.status, ran.stderr) == (0, "")
    assert (root / "usr/etc/systemd/system/tailscale-exporter.service").is_file()


def test_no_directory_leads_out_of_the_root_of_the_system() -> None:
    assert way_out(["/etc/systemd/system", "/nonexistent/directory"], "/") is None
