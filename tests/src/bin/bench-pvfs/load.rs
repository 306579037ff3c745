// SPDX-License-Identifier: MIT
//! The loads. Each runs the same system calls on whatever file system a directory is on.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// Bytes of a sequential request.
pub const BLOCK_BYTES: usize = 1 << 20;
/// Bytes of a random request.
pub const SMALL_BYTES: usize = 4096;
/// Bytes in each of the small files that are created.
pub const SMALL_FILE_BYTES: usize = 1024;

/// The file that job `index` reads and writes.
pub fn data_file(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("data{index}"))
}

/// Runs `job` in `jobs` threads that start together; the time from the start to the last end.
fn together<T: Send>(
    jobs: usize,
    job: impl Fn(usize, &Barrier) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<(Duration, Vec<T>)> {
    let barrier = Barrier::new(jobs + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs)
            .map(|index| {
                let (job, barrier) = (&job, &barrier);
                scope.spawn(move || job(index, barrier))
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        let mut results = Vec::new();
        for thread in threads {
            results.push(
                thread
                    .join()
                    .map_err(|_| anyhow!("a load's thread panicked"))??,
            );
        }
        Ok((start.elapsed(), results))
    })
}

fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e9
}

/// Opens before the clock starts; an early failure still meets the barrier, so that nobody hangs.
fn at_the_barrier<T>(barrier: &Barrier, opened: anyhow::Result<T>) -> anyhow::Result<T> {
    barrier.wait();
    opened
}

/// Writes `bytes` to each job's file in blocks, with fsync at the end; GB/s of all together.
pub fn write_sequential(dir: &Path, jobs: usize, bytes: u64) -> anyhow::Result<f64> {
    let block = pattern(BLOCK_BYTES);
    let (time, _) = together(jobs, |index, barrier| {
        let path = data_file(dir, index);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let mut file = at_the_barrier(barrier, opened.with_context(|| path.display().to_string()))?;
        for _ in 0..bytes / BLOCK_BYTES as u64 {
            file.write_all(&block)?;
        }
        Ok(file.sync_all()?)
    })?;
    Ok(gigabytes_per_second(bytes * jobs as u64, time))
}

/// Reads each job's file in blocks; GB/s of all together. `cold` drops its cached pages before.
pub fn read_sequential(dir: &Path, jobs: usize, bytes: u64, cold: bool) -> anyhow::Result<f64> {
    if cold {
        for index in 0..jobs {
            forget_pages(&data_file(dir, index))?;
        }
    }
    let (time, counts) = together(jobs, |index, barrier| {
        let opened = File::open(data_file(dir, index)).context("open");
        let mut buffer = vec![0; BLOCK_BYTES];
        let mut file = at_the_barrier(barrier, opened)?;
        let mut count = 0;
        while count < bytes {
            match file.read(&mut buffer)? {
                0 => break,
                read => count += read as u64,
            }
        }
        Ok(count)
    })?;
    anyhow::ensure!(
        counts.iter().all(|count| *count == bytes),
        "a file is too short: {counts:?}"
    );
    Ok(gigabytes_per_second(bytes * jobs as u64, time))
}

/// Reads small pieces at random offsets, cold at the start, for `time`; operations per second.
pub fn read_random(dir: &Path, jobs: usize, bytes: u64, time: Duration) -> anyhow::Result<f64> {
    let pieces = bytes / SMALL_BYTES as u64;
    for index in 0..jobs {
        forget_pages(&data_file(dir, index))?;
    }
    let (took, counts) = together(jobs, |index, barrier| {
        let opened = File::open(data_file(dir, index)).context("open");
        let file = at_the_barrier(barrier, opened)?;
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_RANDOM)?;
        let mut rng = fastrand::Rng::with_seed(index as u64);
        let mut buffer = [0; SMALL_BYTES];
        let end = Instant::now() + time;
        let mut count = 0u64;
        while Instant::now() < end {
            file.read_exact_at(&mut buffer, rng.u64(0..pieces) * SMALL_BYTES as u64)?;
            count += 1;
        }
        Ok(count)
    })?;
    Ok(counts.iter().sum::<u64>() as f64 / took.as_secs_f64())
}

/// Creates, writes and closes `count` small files in each job's own directory; files per second.
pub fn create_small(dir: &Path, jobs: usize, count: usize) -> anyhow::Result<f64> {
    let content = pattern(SMALL_FILE_BYTES);
    let (time, _) = together(jobs, |index, barrier| {
        let dir = dir.join(format!("small{index}"));
        let made = std::fs::create_dir(&dir).context("mkdir");
        at_the_barrier(barrier, made)?;
        for number in 0..count {
            File::create_new(dir.join(format!("file{number}")))?.write_all(&content)?;
        }
        Ok(())
    })?;
    for index in 0..jobs {
        std::fs::remove_dir_all(dir.join(format!("small{index}")))?;
    }
    Ok((count * jobs) as f64 / time.as_secs_f64())
}

/// Drops the file's clean pages from the page cache.
fn forget_pages(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.sync_all()?;
    Ok(posix_fadvise(
        &file,
        0,
        0,
        PosixFadviseAdvice::POSIX_FADV_DONTNEED,
    )?)
}

/// Bytes that do not compress to nothing anywhere on the way.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    bytes
}
