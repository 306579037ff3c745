// SPDX-License-Identifier: MIT
//! File handles (name_to_handle_at(2)), by which NFS servers name files: they stay good when the mount
//! has forgotten the file, and when it is another mount.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;

/// The calls take `unsafe` in Rust, which tests do without. `make PATH` prints a handle; `open MOUNT
/// HANDLE` prints what is in the file, or a directory's path, names and parent, as the kernel finds them.
const PROGRAM: &str = r#"
import ctypes, os, stat, sys
libc = ctypes.CDLL(None, use_errno=True)
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("type", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
handle, mount = Handle(bytes=128), ctypes.c_int()
def check(result):
    if result < 0:
        sys.exit(ctypes.get_errno())
    return result
if sys.argv[1] == "make":
    name = os.fsencode(sys.argv[2])
    check(libc.name_to_handle_at(-100, name, ctypes.byref(handle), ctypes.byref(mount), 0))
    print(f"{handle.type}:{bytes(handle.data[:handle.bytes]).hex()}", end="")
else:
    kind, data = sys.argv[3].split(":")
    data = bytes.fromhex(data)
    handle.bytes, handle.type = len(data), int(kind)
    handle.data[:len(data)] = data
    root = os.open(sys.argv[2], os.O_RDONLY)
    file = check(libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY))
    if stat.S_ISDIR(os.fstat(file).st_mode):
        path = os.readlink(f"/proc/self/fd/{file}")
        print(path, sorted(os.listdir(file)), os.stat("..", dir_fd=file).st_ino, end="")
    else:
        print(os.read(file, 100).decode(), end="")
"#;

/// What the program prints, or the error number with which it ends.
fn python(arguments: &[&str]) -> anyhow::Result<Result<String, Errno>> {
    let mut command = Command::new("/usr/bin/python3");
    let output = command.args(["-c", PROGRAM]).args(arguments).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => Ok(Ok(printed)),
        Some(number) if output.stderr.is_empty() => Ok(Err(Errno::from_raw(number))),
        _ => anyhow::bail!("{output:?}"),
    }
}

fn make(path: &Path) -> anyhow::Result<String> {
    let made = python(&["make", &path.to_string_lossy()])?;
    made.map_err(|errno| anyhow::anyhow!("{}: {errno}", path.display()))
}

fn open(mount: &Path, handle: &str) -> anyhow::Result<Result<String, Errno>> {
    python(&["open", &mount.to_string_lossy(), handle])
}

#[test]
fn file_handles_stay_good_over_a_remount_and_on_another_node() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        mounts: 2,
        ..Options::default()
    })?;
    let mount = cluster.mount(0);
    let deep = mount.join("a/b/c");
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("file"), "content")?;
    fs::write(deep.join("gone"), "gone")?;
    let handles = [deep.join("file"), deep.clone(), mount.clone()]
        .iter()
        .map(|path| make(path))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let gone = make(&deep.join("gone"))?;
    let parent = std::os::unix::fs::MetadataExt::ino(&fs::metadata(mount.join("a/b"))?);
    for round in 0..2 {
        for index in 0..2 {
            let at = cluster.mount(index);
            let file = open(&at, &handles[0])?;
            ensure!(
                file == Ok("content".to_owned()),
                "round {round}, mount {index}: the file: {file:?}"
            );
            let directory = open(&at, &handles[1])?;
            let shown = at.join("a/b/c").to_string_lossy().into_owned();
            let names = if round == 0 {
                "['file', 'gone']"
            } else {
                "['file']"
            };
            ensure!(
                directory == Ok(format!("{shown} {names} {parent}")),
                "round {round}, mount {index}: the directory: {directory:?}"
            );
            ensure!(open(&at, &handles[2])?.is_ok(), "the root");
        }
        // The second round is on mounts that have never seen any of it.
        fs::remove_file(deep.join("gone")).or_else(|error| match round {
            0 => Err(error),
            _ => Ok(()),
        })?;
        for index in 0..2 {
            cluster.unmount(index)?;
            cluster.restart_mount(index)?;
        }
    }
    let stale = open(&mount, &gone)?;
    ensure!(stale == Err(Errno::ESTALE), "a removed file: {stale:?}");
    cluster.finish()
}
