// SPDX-License-Identifier: MIT
//! The demo's work: files stored through one node, and downloaded by many clients through the VIP.

use crate::plan;
use crate::process::Launcher;
use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// One write or read; the file system's own request size.
const CHUNK_BYTES: usize = 1 << 20;

/// How long one download may take before it counts as hung.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(300);

/// A file to store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePlan {
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
}

/// A file that was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name.
    pub name: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// SHA-256 of its content.
    pub digest: [u8; 32],
}

/// `count` files whose sizes spread evenly from `bytes_min` to `bytes_max`, small and large mixed.
#[must_use]
pub fn plan_files(count: usize, bytes_min: u64, bytes_max: u64) -> Vec<FilePlan> {
    let steps = u64::try_from(count.saturating_sub(1)).unwrap_or(0).max(1);
    let span = bytes_max.saturating_sub(bytes_min);
    // Any stride without a common divisor visits every size once, small and large by turns.
    let stride = coprime_stride(count);
    (0..count)
        .map(|index| {
            let rank = u64::try_from((index * stride) % count).unwrap_or(0);
            // A few odd bytes, so that no size is a whole number of stripes.
            let odd = if rank < steps {
                rank * 4097 % 65_521
            } else {
                0
            };
            let bytes = bytes_min
                .saturating_add(span / steps * rank)
                .saturating_add(odd);
            FilePlan {
                name: format!("file{:02}.bin", index + 1),
                bytes: bytes.min(bytes_max),
            }
        })
        .collect()
}

fn coprime_stride(count: usize) -> usize {
    let greatest_common_divisor = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (count * 5 / 12..count)
        .find(|&s| s > 0 && greatest_common_divisor(s, count) == 1)
        .unwrap_or(1)
}

/// Writes `file` into `dir` with content that depends on its name alone.
///
/// # Errors
/// Names the file and what failed.
pub fn store(dir: &Path, file: &FilePlan, written: &AtomicU64) -> anyhow::Result<StoredFile> {
    let path = dir.join(&file.name);
    let failed = |what: &str| format!("{what} {}", path.display());
    let mut output = File::create(&path).with_context(|| failed("creating"))?;
    let mut random = SplitMix::seeded(&file.name);
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = file.bytes;
    while left > 0 {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        let part = chunk.get_mut(..length).context("chunk")?;
        random.fill(part);
        digest.update(&*part);
        output.write_all(part).with_context(|| failed("writing"))?;
        let length = u64::try_from(length)?;
        left = left.saturating_sub(length);
        written.fetch_add(length, Ordering::Relaxed);
    }
    output.sync_all().with_context(|| failed("fsync of"))?;
    Ok(StoredFile {
        name: file.name.clone(),
        bytes: file.bytes,
        digest: digest.finalize().into(),
    })
}

/// The generator SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): fast, and good enough that no two
/// blocks of a file are alike.
struct SplitMix(u64);

impl SplitMix {
    fn seeded(name: &str) -> Self {
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for part in bytes.chunks_mut(8) {
            for (to, from) in part.iter_mut().zip(self.next().to_le_bytes()) {
                *to = from;
            }
        }
    }
}

/// What the downloads came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Downloads {
    /// How many there were, all with the right SHA-256.
    pub count: usize,
    /// Bytes received.
    pub bytes: u64,
    /// From the first request to the last byte.
    pub elapsed: Duration,
}

/// Progress of the downloads, for those who look on.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes received so far.
    pub bytes: AtomicU64,
    /// Downloads that ended.
    pub done: AtomicUsize,
}

/// Lets `clients` clients, each a curl process at a time in the client namespace, download
/// `per_client` files each through the VIP, and checks every SHA-256.
///
/// # Errors
/// The first download that failed or had other content than was stored.
pub fn download_all(
    launcher: &Launcher,
    namespace: &str,
    files: &[StoredFile],
    clients: usize,
    per_client: usize,
    progress: &Progress,
) -> anyhow::Result<Downloads> {
    let started = Instant::now();
    let results: Vec<anyhow::Result<u64>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                scope.spawn(move || {
                    let mut bytes = 0u64;
                    for turn in 0..per_client {
                        // Every client begins elsewhere, so that all files are wanted all the time.
                        let file = files
                            .iter()
                            .cycle()
                            .nth((client + turn * 7) % files.len().max(1));
                        let file = file.context("there are no files to download")?;
                        bytes +=
                            download(launcher, namespace, file, progress).with_context(|| {
                                format!("client {} downloading {}", client + 1, file.name)
                            })?;
                        progress.done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(bytes)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| {
                worker
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a client thread died")))
            })
            .collect()
    });
    let bytes = results.into_iter().sum::<anyhow::Result<u64>>()?;
    Ok(Downloads {
        count: clients * per_client,
        bytes,
        elapsed: started.elapsed(),
    })
}

fn download(
    launcher: &Launcher,
    namespace: &str,
    file: &StoredFile,
    progress: &Progress,
) -> anyhow::Result<u64> {
    let url = format!("http://{}:{}/{}", plan::vip(), plan::HTTP_PORT, file.name);
    let limit = DOWNLOAD_TIMEOUT.as_secs().to_string();
    let argv = [
        "curl",
        "--silent",
        "--show-error",
        "--fail",
        "--max-time",
        &limit,
        &url,
    ];
    let argv: Vec<String> = argv.iter().map(|&word| word.to_owned()).collect();
    let mut child = launcher
        .command(Some(namespace), &argv)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting curl: is it installed? run scripts/setup.sh")?;
    let mut stdout = child.stdout.take().context("curl's output")?;
    let mut digest = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut bytes = 0u64;
    loop {
        let length = stdout.read(&mut chunk).context("reading curl's output")?;
        if length == 0 {
            break;
        }
        digest.update(chunk.get(..length).context("chunk")?);
        let length = u64::try_from(length)?;
        bytes = bytes.saturating_add(length);
        progress.bytes.fetch_add(length, Ordering::Relaxed);
    }
    let output = child.wait_with_output().context("waiting for curl")?;
    if !output.status.success() {
        bail!(
            "curl: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let digest: [u8; 32] = digest.finalize().into();
    if digest != file.digest {
        bail!(
            "{url}: {bytes} bytes came with SHA-256 {}, stored were {} bytes with {}",
            hex(&digest),
            file.bytes,
            hex(&file.digest)
        );
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn sizes_spread_over_the_whole_range() {
        for count in 1..40 {
            let files = plan_files(count, 10_000_000, 50_000_000);
            assert_eq!(files.len(), count);
            assert!(
                files
                    .iter()
                    .all(|f| (10_000_000..=50_000_000).contains(&f.bytes))
            );
            let sizes: HashSet<u64> = files.iter().map(|f| f.bytes).collect();
            assert_eq!(sizes.len(), count, "sizes repeat with {count} files");
            let names: HashSet<&str> = files.iter().map(|f| f.name.as_str()).collect();
            assert_eq!(names.len(), count);
        }
        let twelve = plan_files(12, 10_000_000, 50_000_000);
        assert_eq!(twelve.iter().map(|f| f.bytes).min(), Some(10_000_000));
        assert!(twelve.iter().map(|f| f.bytes).max() > Some(49_000_000));
    }

    #[test]
    fn a_stored_file_is_what_its_digest_says() {
        let dir = tempfile::tempdir().unwrap();
        let written = AtomicU64::new(0);
        let plan = FilePlan {
            name: "a".into(),
            bytes: 2_500_001,
        };
        let stored = store(dir.path(), &plan, &written).unwrap();
        let content = std::fs::read(dir.path().join("a")).unwrap();
        assert_eq!(content.len(), 2_500_001);
        assert_eq!(written.into_inner(), 2_500_001);
        let digest: [u8; 32] = Sha256::digest(&content).into();
        assert_eq!(stored.digest, digest);
        let other = FilePlan {
            name: "b".into(),
            ..plan
        };
        assert_ne!(
            store(dir.path(), &other, &AtomicU64::new(0))
                .unwrap()
                .digest,
            digest
        );
    }
}
