// SPDX-License-Identifier: MIT
//! Bits flipped in iods' files, under a real mount: an error that is logged, never wrong data.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use cssns_tests::pvfs_cluster::{Cluster, Options};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};

/// Three stripes, so that each iod has one.
const FILE_BYTES: usize = 3 * (512 << 10);
const IODS: usize = 3;

fn content() -> Vec<u8> {
    (0..FILE_BYTES)
        .map(|at| (at / 7) as u8 ^ (at / 4096) as u8)
        .collect()
}

/// The local files of objects' data.
fn objects(cluster: &Cluster) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for iod in 0..IODS {
        let objects = cluster.scratch().join(format!("iod{iod}/objects"));
        let entries = fs::read_dir(objects)?.map(|entry| Ok(entry?.path()));
        let entries: Vec<PathBuf> = entries.collect::<std::io::Result<_>>()?;
        for hash in entries.iter().filter(|path| path.is_dir()) {
            for file in fs::read_dir(hash)? {
                let path = file?.path();
                if path.extension().is_none_or(|suffix| suffix != "sums") {
                    found.push(path);
                }
            }
        }
    }
    Ok(found)
}

fn flip(path: &Path, at: u64) -> anyhow::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 0x40], at)?;
    Ok(())
}

/// Reads the whole file past the page cache.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_DIRECT)
        .open(path)?;
    let mut bytes = vec![0; FILE_BYTES];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn logs(cluster: &Cluster) -> anyhow::Result<String> {
    let mut all = String::new();
    for iod in 0..IODS {
        let log = cluster.scratch().join(format!("log/iod{iod}.log"));
        all += &fs::read_to_string(&log).with_context(|| format!("{}", log.display()))?;
    }
    Ok(all)
}

#[test]
fn a_flipped_bit_is_an_error_in_the_log_and_never_data() -> anyhow::Result<()> {
    let mut cluster = Cluster::start(Options {
        mount_options: "allow_other,direct_io".into(),
        ..Options::default()
    })?;
    let path = cluster.mount(0).join("file");
    fs::write(&path, content())?;
    File::open(&path)?.sync_all()?;
    ensure!(read(&path)? == content(), "before any damage");
    let objects = objects(&cluster)?;
    ensure!(objects.len() == IODS, "{objects:?}");
    for restarted in [false, true] {
        if restarted {
            // An orderly stop covers what is on the disk, so that a restart knows it again.
            for iod in 0..IODS {
                cluster.stop_iod(iod)?;
                cluster.restart_iod(iod)?;
            }
            ensure!(read(&path)? == content(), "after the restart");
        }
        for object in &objects {
            for at in [0, 4095, 300_000, (512 << 10) - 1] {
                flip(object, at)?;
                let outcome = read(&path);
                let kind = outcome.as_ref().map_err(|error| error.raw_os_error()).err();
                ensure!(
                    kind == Some(Some(nix::libc::EIO)),
                    "byte {at} of {}: {:?}",
                    object.display(),
                    outcome.map(|bytes| bytes == content())
                );
                flip(object, at)?;
                ensure!(read(&path)? == content(), "after it was put right");
            }
        }
    }
    let name = objects[0].file_name().context("no name")?.to_string_lossy();
    ensure!(
        logs(&cluster)?.contains(&*name),
        "no log names the file {name}"
    );
    fs::remove_file(&objects[1])?;
    cluster.kill_iod(iod_of(&objects[1])?)?;
    cluster.restart_iod(iod_of(&objects[1])?)?;
    let error = read(&path).err().context("a lost object was read")?;
    ensure!(error.kind() != ErrorKind::NotFound && error.raw_os_error() == Some(nix::libc::EIO));
    // What is rewritten is whole again.
    fs::remove_file(&path)?;
    fs::write(&path, content())?;
    ensure!(read(&path)? == content(), "a new file");
    cluster.finish()
}

/// An object that is gone together with its checksums leaves nothing behind that could tell of it but
/// mgr's word that its bytes were written.
#[test]
fn bytes_that_are_gone_without_a_trace_are_an_error() -> anyhow::Result<()> {
    const STRIPE: usize = FILE_BYTES / IODS;
    for mount_options in ["allow_other", "allow_other,direct_io"] {
        let mut cluster = Cluster::start(Options {
            mount_options: mount_options.into(),
            ..Options::default()
        })?;
        let path = cluster.mount(0).join("whole");
        // As a program does that copies: one piece after another.
        let file = File::create(&path)?;
        for (at, piece) in (0..).step_by(STRIPE / 4).zip(content().chunks(STRIPE / 4)) {
            file.write_all_at(piece, at)?;
        }
        file.sync_all()?;
        let gone = objects(&cluster)?.swap_remove(1);
        let sparse = cluster.mount(0).join("sparse");
        let holes = File::create(&sparse)?;
        holes.write_all_at(b"end", (FILE_BYTES - 3) as u64)?;
        holes.sync_all()?;

        let iod = iod_of(&gone)?;
        cluster.kill_iod(iod)?;
        fs::remove_file(&gone)?;
        fs::remove_file(gone.with_extension(sums_extension(&gone)?))?;
        cluster.restart_iod(iod)?;

        let kind = |error: std::io::Error| error.raw_os_error();
        let stripes = (0..IODS).map(|number| {
            let mut bytes = vec![0; STRIPE];
            let file = OpenOptions::new()
                .read(true)
                .custom_flags(nix::libc::O_DIRECT)
                .open(&path)?;
            let at = number * STRIPE;
            file.read_exact_at(&mut bytes, at as u64)?;
            Ok(bytes == content()[at..at + STRIPE])
        });
        let mut outcomes: Vec<_> = stripes.map(|outcome| outcome.map_err(kind)).collect();
        outcomes.sort();
        let eio = Some(nix::libc::EIO);
        ensure!(outcomes == [Ok(true), Ok(true), Err(eio)], "{outcomes:?}");
        let found = lseek(&file, 0, Whence::SeekData);
        ensure!(found == Err(Errno::EIO), "{found:?}");
        let copy = File::create(cluster.mount(0).join("copy"))?;
        let source = File::open(&path)?;
        let copied = copy_file_range(&source, None, &copy, None, FILE_BYTES);
        ensure!(copied == Err(Errno::EIO), "{copied:?}");
        let name = gone.file_name().context("no name")?.to_string_lossy();
        ensure!(logs(&cluster)?.contains(&*name), "no log names {name}");
        // What was never written is no loss.
        let mut zeros = vec![0; FILE_BYTES - 3];
        zeros.extend(b"end");
        ensure!(read(&sparse)? == zeros, "holes");
        file.write_all_at(&content(), 0)?;
        ensure!(read(&path)? == content(), "what is written anew is there");
        drop((file, holes, source, copy));
        cluster.finish()?;
    }
    Ok(())
}

/// That of the object's checksums.
fn sums_extension(object: &Path) -> anyhow::Result<String> {
    let generation = object.extension().and_then(|text| text.to_str());
    Ok(format!("{}.sums", generation.context("no generation")?))
}

fn iod_of(object: &Path) -> anyhow::Result<usize> {
    let mut parts = object.components().filter_map(|part| {
        let text = part.as_os_str().to_str()?;
        text.strip_prefix("iod")?.parse().ok()
    });
    parts.next_back().context("no iod in the path")
}
