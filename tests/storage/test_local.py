import errno
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hipray.errors import (
    AccessDeniedError,
    NotFoundError,
    StorageError,
    StoreFullError,
    StoreUnavailableError,
)
from hipray.storage import Store, open_store
from hipray.storage.atomic import PARTIAL_PREFIX

PATHS = {"PYTHONPATH": str(Path(__file__).parents[2])}
NO_MOUNT = 77


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"))


def run_on_mount(tmp_path: Path, options: str, script: str) -> str:
    """Run `script` with a small tmpfs as current folder, mounted for that process alone."""
    mount = tmp_path / "mount"
    mount.mkdir()
    mounting = f'mount -t tmpfs -o {options} tmpfs "$1" || exit {NO_MOUNT}'
    shell = f'{mounting}; cd "$1" && exec "$2" -c "$3"'
    command = ["unshare", "-Urm", "sh", "-c", shell, "sh", str(mount), sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **PATHS})
    if done.returncode == NO_MOUNT or done.stderr.startswith("unshare:"):
        pytest.skip(f"this machine lets no test mount a file system: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


FULL_DISK = """
from hipray.errors import StoreFullError
from hipray.storage import open_store
store = open_store("store")
store.write("small", b"x")
for operation in (store.write, store.create):
    try:
        operation("large", b"x" * 10_000_000)
    except StoreFullError as error:
        print("full:", error)
print([found.key for found in store.list()], len(list(store.local_path("small").parent.iterdir())))
store.write("small", b"yes")
print(store.read("small"))
"""

READ_ONLY = """
from hipray.errors import AccessDeniedError
from hipray.storage import open_store
try:
    open_store("store").write("a", b"x")
except AccessDeniedError as error:
    print("denied:", error)
"""


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    said = run_on_mount(tmp_path, "size=256k", FULL_DISK).splitlines()
    assert [line.startswith("full:") for line in said[:2]] == [True, True]
    assert said[2:] == ["['small'] 1", "b'yes'"]


def test_a_read_only_folder_is_said_to_deny_access(tmp_path: Path) -> None:
    assert run_on_mount(tmp_path, "ro", READ_ONLY).startswith("denied:")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, StoreFullError),
        (errno.EDQUOT, StoreFullError),
        (errno.EROFS, AccessDeniedError),
        (errno.EACCES, AccessDeniedError),
        (errno.EIO, StoreUnavailableError),
        (errno.ESTALE, StoreUnavailableError),
        (errno.ENAMETOOLONG, StorageError),
    ],
)
def test_a_failure_of_the_disk_is_explained_and_leaves_the_old_file(
    folder: Store, monkeypatch: pytest.MonkeyPatch, code: int, expected: type[StorageError]
) -> None:
    folder.write("a", b"old")

    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected, match=os.strerror(code)) as raised:
            folder.write("a", b"new")
    assert type(raised.value) is expected
    assert folder.read("a") == b"old"
    assert os.listdir(folder.uri) == ["a"]  # noqa: PTH208


def test_a_name_the_file_system_does_not_take_is_explained(folder: Store) -> None:
    with pytest.raises(StorageError, match="another name"):
        folder.write("x" * 300, b"")


def test_a_writer_killed_half_way_leaves_nothing_that_can_be_seen(folder: Store) -> None:
    folder.write("runs/a", b"x")
    half = Path(folder.uri) / "runs" / f"{PARTIAL_PREFIX}1"
    half.write_bytes(b"half")
    only_half = Path(folder.uri) / "other" / f"{PARTIAL_PREFIX}2"
    only_half.parent.mkdir()
    only_half.write_bytes(b"half")
    assert [found.key for found in folder.list()] == ["runs/a"]
    assert list(folder.list_folders()) == ["runs"]


def test_a_killed_writer_leaves_the_old_content(folder: Store) -> None:
    folder.write("a", b"old")
    script = (
        "import sys\nfrom hipray.storage import open_store\n"
        "print('ready', flush=True)\n"
        "while True: open_store(sys.argv[1]).write('a', b'new' * 3_000_000)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", script, folder.uri],
        stdout=subprocess.PIPE,
        env={**os.environ, **PATHS},
    )
    assert writer.stdout is not None
    writer.stdout.readline()
    threading.Event().wait(0.15)
    writer.kill()
    writer.communicate()
    assert folder.read("a") in (b"old", b"new" * 3_000_000)
    assert [found.key for found in folder.list()] == ["a"]


def test_a_file_in_the_way_of_a_folder_is_explained(folder: Store) -> None:
    folder.write("a", b"x")
    folder.write("b/c", b"x")
    for key in ("a/b", "b"):
        with pytest.raises(StorageError, match="in the way"):
            folder.write(key, b"y")
        with pytest.raises(StorageError, match="in the way"):
            folder.create(key, b"y")


def test_linked_files_and_folders_are_followed_once(folder: Store, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "film.png").write_bytes(b"x")
    folder.write("a", b"x")
    root = Path(folder.uri)
    (root / "linked").symlink_to(outside)
    (root / "loop").symlink_to(root)
    assert [found.key for found in folder.list()] == ["a", "linked/film.png"]
    assert folder.read("linked/film.png") == b"x"


def test_links_that_lead_nowhere_are_listed_and_told_to_who_reads_them(folder: Store) -> None:
    root = Path(folder.uri)
    root.mkdir(exist_ok=True)
    (root / "dangling").symlink_to(root / "nowhere")
    (root / "itself").symlink_to(root / "itself")
    assert [found.key for found in folder.list()] == ["dangling", "itself"]
    for key in ("dangling", "itself"):
        assert not folder.exists(key)
        with pytest.raises(NotFoundError):
            folder.read(key)


def test_a_file_is_the_same_whatever_inode_a_mount_gives_it(folder: Store) -> None:
    folder.write("a", b"film")
    before = folder.info("a")
    path = folder.local_path("a")
    assert path is not None
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    copy.replace(path)
    assert folder.info("a") == before
    os.utime(path, ns=(0, 0))
    assert folder.info("a") != before


def test_a_pipe_is_not_an_object_and_does_not_block(folder: Store) -> None:
    folder.write("a", b"x")
    os.mkfifo(Path(folder.uri) / "pipe")
    assert [found.key for found in folder.list()] == ["a"]
    assert not folder.exists("pipe")
    with pytest.raises(StorageError):
        folder.read("pipe")


def test_writers_and_deleters_of_one_folder_do_not_disturb_each_other(folder: Store) -> None:
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(40):
                folder.write(f"a/b/{number}", b"x")
                folder.delete(f"a/b/{number}")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(folder.list()) == []


def test_files_get_the_rights_that_the_user_gives_new_files(folder: Store) -> None:
    mask = os.umask(0o022)
    try:
        folder.write("a", b"x")
    finally:
        os.umask(mask)
    path = folder.local_path("a")
    assert path is not None
    assert path.stat().st_mode & 0o777 == 0o644
