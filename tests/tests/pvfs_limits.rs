// SPDX-License-Identifier: MIT
//! The far ends of POSIX, on two mounts: access control lists by the tools that people use, directory
//! streams, removed directories, names, paths, links, sizes, and mappings at the end of a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// A user who owns nothing.
const NOBODY: u32 = 65_534;

fn cluster(mounts: usize) -> anyhow::Result<Cluster> {
    Cluster::start(Options {
        mounts,
        ..Options::default()
    })
}

fn errno<T>(result: io::Result<T>) -> Option<Errno> {
    let error = result.err()?;
    error.raw_os_error().map(Errno::from_raw)
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {stderr}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a shell command in `dir` as nobody.
fn as_nobody(dir: &Path, script: &str) -> anyhow::Result<Output> {
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .args(["sh", "-c", script])
        .current_dir(dir);
    Ok(command.output()?)
}

fn mode(path: &Path) -> anyhow::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

#[test]
fn access_control_lists_by_setfacl_and_getfacl() -> anyhow::Result<()> {
    let cluster = cluster(2)?;
    fs::set_permissions(cluster.scratch(), fs::Permissions::from_mode(0o755))?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let (file, far) = (here.join("f"), there.join("f"));
    fs::write(&file, "secret")?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
    ensure!(!as_nobody(&there, "cat f")?.status.success());
    let acl =
        |arguments: &[&str], path: &Path| run(Command::new("setfacl").args(arguments).arg(path));
    let show = |path: &Path| {
        let mut getfacl = Command::new("getfacl");
        run(getfacl
            .args(["--absolute-names", "--omit-header", "--numeric"])
            .arg(path))
    };
    acl(&["-m", "u:65534:r"], &file)?;
    ensure!(show(&far)?.trim() == "user::rw-\nuser:65534:r--\ngroup::---\nmask::r--\nother::---");
    ensure!(mode(&far)? == 0o640, "the group's part shows the mask");
    ensure!(
        as_nobody(&there, "cat f")?.stdout == b"secret",
        "seen on the other node"
    );
    ensure!(!as_nobody(&there, "echo x >> f")?.status.success());
    fs::set_permissions(&far, fs::Permissions::from_mode(0o600))?;
    ensure!(
        !as_nobody(&here, "cat f")?.status.success(),
        "chmod took the mask away"
    );
    acl(&["-m", "m::rw,u:65534:rw"], &file)?;
    ensure!(as_nobody(&there, "echo ' told' >> f && cat f")?.stdout == b"secret told\n");
    acl(&["-b"], &far)?;
    ensure!(show(&file)?.trim() == "user::rw-\ngroup::---\nother::---");
    ensure!(!as_nobody(&here, "cat f")?.status.success());

    let dir = here.join("d");
    fs::create_dir(&dir)?;
    acl(&["-d", "-m", "u:65534:rwx,g::r-x,o::---"], &dir)?;
    acl(&["-m", "u:65534:rwx"], &dir)?;
    run(Command::new("sh")
        .args(["-c", "umask 077 && echo made > d/f && mkdir d/sub"])
        .current_dir(&there))?;
    ensure!(
        mode(&dir.join("f"))? == 0o660,
        "the default list counts, not the umask"
    );
    ensure!(
        as_nobody(&here, "cat d/f && touch d/sub/g")?
            .status
            .success()
    );
    ensure!(
        show(&dir.join("sub"))?.contains("default:user:65534:rwx"),
        "handed on"
    );
    ensure!(show(&there.join("d/sub/g"))?.contains("user:65534:rwx\t#effective:rw-"));
    // Who owns it not changes it not.
    ensure!(
        !as_nobody(&here, "setfacl -m u:65534:rwx d/f")?
            .status
            .success()
    );
    // A copy that keeps everything keeps the lists.
    run(Command::new("cp")
        .arg("-a")
        .arg(&dir)
        .arg(here.join("copy")))?;
    ensure!(show(&there.join("copy/sub"))? == show(&dir.join("sub"))?);
    cluster.finish()
}

/// Reads half of a directory, notes where, changes it through the other mount, and goes on from the
/// noted places: Rust's own streams cannot be told where to go on.
const SEEKDIR: &str = r#"
my ($here, $there, $count) = @ARGV;
opendir(my $d, $here) or die;
my (%at, @order);
for (1 .. $count / 2 + 2) {
    my $place = telldir($d);
    my $name = readdir($d);
    push @order, $name;
    $at{$name} = $place;
}
my $middle = telldir($d);
for my $n (0 .. $count - 1) {
    unlink("$there/f$n") or die if $n % 3 == 1;
    open(my $f, ">", "$there/new$n") or die if $n % 3 == 0;
}
my %rest;
while (defined(my $name = readdir($d))) { die "twice $name" if $rest{$name}++; }
for my $name (@order) { die "again $name" if $rest{$name}; }
seekdir($d, $middle);
my %again;
while (defined(my $name = readdir($d))) { $again{$name} = 1; }
for my $n (0 .. $count - 1) {
    next if $n % 3 == 1;
    die "lost f$n" unless $at{"f$n"} || ($rest{"f$n"} && $again{"f$n"});
    # What was made since the stream was opened stands behind its end.
    die "new$n" if $rest{"new$n"} || $again{"new$n"};
}
for my $name (@order) {
    next if $name =~ /^f(\d+)$/ && $1 % 3 == 1;
    seekdir($d, $at{$name});
    my $found = readdir($d);
    die "$name became $found" if $found ne $name;
}
rewinddir($d);
my %all = map { $_ => 1 } readdir($d);
for my $n (0 .. $count - 1) { die "lost new$n" if $n % 3 == 0 && !$all{"new$n"}; }
print keys(%all) - 2;
"#;

#[test]
fn a_stream_goes_on_where_it_was_told_whatever_changes() -> anyhow::Result<()> {
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    fs::create_dir(&here)?;
    let count = 900;
    for number in 0..count {
        File::create(here.join(format!("f{number}")))?;
    }
    let mut perl = Command::new("perl");
    perl.args(["-e", SEEKDIR])
        .arg(&here)
        .arg(&there)
        .arg(count.to_string());
    ensure!(run(&mut perl)? == count.to_string());
    cluster.finish()
}

#[test]
fn a_removed_directory_that_is_open_is_empty() -> anyhow::Result<()> {
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    for remover in [&here, &there] {
        for replaced in [false, true] {
            let dir = here.join("d");
            fs::create_dir(&dir)?;
            fs::write(dir.join("f"), "x")?;
            let open = File::open(&dir)?;
            fs::remove_file(remover.join("d/f"))?;
            if replaced {
                fs::create_dir(remover.join("e"))?;
                fs::rename(remover.join("e"), remover.join("d"))?;
            } else {
                fs::remove_dir(remover.join("d"))?;
            }
            let through = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
            let found = open.metadata().context("fstat")?;
            ensure!(found.is_dir() && found.nlink() == 0, "{found:?}");
            ensure!(fs::read_dir(&through)?.count() == 0);
            ensure!(errno(File::create(through.join("g"))) == Some(Errno::ENOENT));
            ensure!(errno(fs::create_dir(through.join("g"))) == Some(Errno::ENOENT));
            ensure!(errno(fs::metadata(through.join("f"))) == Some(Errno::ENOENT));
            drop(open);
            if replaced {
                fs::remove_dir(&dir)?;
            }
            ensure!(!dir.exists());
        }
    }
    cluster.finish()
}

#[test]
fn names_and_paths_are_as_long_as_they_may_be() -> anyhow::Result<()> {
    const PATH_BYTES_MAX: usize = 4095;
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let longest = "n".repeat(255);
    fs::write(here.join(&longest), "x")?;
    ensure!(fs::read(there.join(&longest))? == b"x");
    let names = fs::read_dir(&there)?.map(|entry| Ok(entry?.file_name()));
    ensure!(names.collect::<io::Result<Vec<_>>>()? == [longest.as_str()]);
    let longer = here.join(format!("{longest}n"));
    ensure!(errno(File::create(&longer)) == Some(Errno::ENAMETOOLONG));
    let mut path = here;
    while path.as_os_str().len() + 1 + longest.len() + 2 < PATH_BYTES_MAX {
        path.push(&longest);
        if !path.is_file() {
            fs::create_dir(&path)?;
        } else {
            fs::remove_file(&path)?;
            fs::create_dir(&path)?;
        }
    }
    let rest = PATH_BYTES_MAX - path.as_os_str().len() - 1;
    let file = path.join("f".repeat(rest));
    fs::write(&file, "deep")?;
    ensure!(file.as_os_str().len() == PATH_BYTES_MAX && fs::read(&file)? == b"deep");
    let beyond = path.join("f".repeat(rest + 1));
    ensure!(errno(File::open(beyond)) == Some(Errno::ENAMETOOLONG));
    let target = "t".repeat(4095);
    std::os::unix::fs::symlink(&target, cluster.mount(0).join("link"))?;
    ensure!(fs::read_link(there.join("link"))?.as_os_str() == target.as_str());
    cluster.finish()
}

#[test]
fn a_file_is_as_long_as_an_offset() -> anyhow::Result<()> {
    let cluster = cluster(2)?;
    let (path, far) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)?;
    let longest = i64::MAX as u64;
    file.set_len(longest)?;
    ensure!(fs::metadata(&far)?.len() == longest && fs::metadata(&far)?.blocks() == 0);
    let mut end = [1; 5];
    File::open(&far)?.read_exact_at(&mut end, longest - 5)?;
    ensure!(end == [0; 5], "the last bytes");
    // Beyond what a local file holds on the iods' disks, and as far as there are offsets.
    let places = [40 << 40, 1 << 62, longest - 3];
    let mut found = [0; 3];
    for place in places {
        file.write_all_at(b"far", place)?;
        File::open(&far)?.read_exact_at(&mut found, place)?;
        ensure!(found == *b"far", "at {place}");
    }
    file.sync_all()?;
    ensure!(file.metadata()?.len() == longest && fs::metadata(&far)?.blocks() <= 3 * 8 * 2);
    let reader = File::open(&far)?;
    let mut at = 0;
    for place in places.map(i64::try_from) {
        let place = place?;
        let data = lseek(&reader, at, Whence::SeekData)?;
        ensure!((0..4096).contains(&(place - data)), "{place}: {data}");
        at = lseek(&reader, data, Whence::SeekHole)?;
        ensure!((1..=4096).contains(&(at - place)), "{place}: {at}");
    }
    let place = places[1];
    file.set_len(place + 1)?;
    file.set_len(place + 3)?;
    File::open(&far)?.read_exact_at(&mut found, place)?;
    ensure!(found == *b"f\0\0", "what was cut off stays cut off");
    cluster.finish()
}

/// Obeys `read AT` and `write AT` on a mapping of 16 KiB; ends by SIGBUS where there is no file.
const MAPPING: &str = "\
import mmap, os, sys
with open(sys.argv[1], 'r+b') as file:
    pages = mmap.mmap(file.fileno(), 16384)
    for act in sys.argv[2:]:
        what, at = act.split(':')
        if what == 'cut': os.truncate(at, 5000)
        elif what == 'read': sys.stdout.write('%02x' % pages[int(at)]); sys.stdout.flush()
        elif what == 'write': pages[int(at)] = 0x77; pages.flush()
";

#[test]
fn mappings_end_where_the_file_does() -> anyhow::Result<()> {
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0).join("f"), cluster.mount(1).join("f"));
    let map = |acts: &[&str]| -> anyhow::Result<Output> {
        let mut python = Command::new("python3");
        Ok(python
            .args(["-c", MAPPING])
            .arg(&here)
            .args(acts)
            .output()?)
    };
    let fresh = || fs::write(&here, vec![0x55; 16_384]);
    let bus = |output: &Output| output.status.signal() == Some(nix::libc::SIGBUS);
    fresh()?;
    let cut_here = format!("cut:{}", here.display());
    let cut_there = format!("cut:{}", there.display());
    for cut in [&cut_here, &cut_there] {
        fresh()?;
        let within = map(&["read:4999", cut, "read:4999", "read:5000", "write:6000"])?;
        ensure!(
            within.status.success() && within.stdout == b"555500",
            "{within:?}"
        );
        ensure!(
            fs::metadata(&there)?.len() == 5000,
            "a mapping does not lengthen a file"
        );
        ensure!(fs::read(&there)? == vec![0x55; 5000]);
        File::options().write(true).open(&there)?.set_len(8192)?;
        ensure!(
            fs::read(&there)?[5000..].iter().all(|byte| *byte == 0),
            "nor leave bytes there"
        );
        fresh()?;
        let beyond = map(&["read:9000", cut, "read:9000"])?;
        ensure!(bus(&beyond) && beyond.stdout == b"55", "{beyond:?}");
        fresh()?;
        ensure!(bus(&map(&[cut, "write:9000"])?));
    }
    fresh()?;
    ensure!(map(&["write:12345"])?.status.success());
    ensure!(fs::read(&there)?[12_345] == 0x77, "seen on the other node");
    cluster.finish()
}

/// Runs `job` for each of `0..count`, in several threads, since each call waits for mgr's disk.
fn in_parallel(count: usize, job: impl Fn(usize) -> io::Result<()> + Sync) -> anyhow::Result<()> {
    const THREADS: usize = 16;
    let worker = |first: usize| (first..count).step_by(THREADS).try_for_each(&job);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|first| scope.spawn(move || worker(first)))
            .collect();
        for worker in workers {
            worker
                .join()
                .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })
}

#[test]
#[ignore = "minutes: `make test-posix` runs it"]
fn an_inode_has_65_000_names_and_no_more() -> anyhow::Result<()> {
    const LINKS_MAX: usize = 65_000;
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0), cluster.mount(1));
    let first = here.join("f");
    fs::write(&first, "x")?;
    let name = |number: usize| format!("l{number}");
    in_parallel(LINKS_MAX - 1, |number| {
        fs::hard_link(&first, here.join(name(number)))
    })?;
    ensure!(fs::metadata(there.join("f"))?.nlink() == LINKS_MAX as u64);
    ensure!(errno(fs::hard_link(&first, here.join("more"))) == Some(Errno::EMLINK));
    fs::remove_file(there.join("l7"))?;
    fs::hard_link(&first, here.join("more"))?;
    ensure!(fs::read_dir(&there)?.count() == LINKS_MAX);
    cluster.finish()
}

#[test]
#[ignore = "minutes: `make test-posix` runs it"]
fn a_directory_has_a_million_entries() -> anyhow::Result<()> {
    const ENTRIES: usize = 1_000_000;
    let cluster = cluster(2)?;
    let (here, there) = (cluster.mount(0).join("d"), cluster.mount(1).join("d"));
    fs::create_dir(&here)?;
    let name = |number: usize| format!("entry{number}");
    in_parallel(ENTRIES, |number| {
        nix::unistd::mkfifo(&here.join(name(number)), nix::sys::stat::Mode::S_IRUSR)
            .map_err(io::Error::from)
    })?;
    // While another node reads it, a third of it goes and as much comes.
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| -> io::Result<Vec<bool>> {
            let mut seen = vec![false; ENTRIES];
            for entry in fs::read_dir(&there)? {
                let name = entry?.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix("entry"));
                if let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) {
                    assert!(!seen[number], "entry {number} comes twice");
                    seen[number] = true;
                }
            }
            Ok(seen)
        });
        in_parallel(ENTRIES / 100, |number| {
            fs::remove_file(here.join(name(number * 100)))?;
            fs::write(here.join(format!("new{number}")), "")
        })?;
        let seen = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?;
        Ok::<_, anyhow::Error>(seen?)
    })?;
    let lost = (0..ENTRIES).filter(|number| number % 100 != 0 && !seen[*number]);
    ensure!(lost.count() == 0, "entries that stayed were not read");
    ensure!(fs::read_dir(&there)?.count() == ENTRIES);
    cluster.finish()
}
