// SPDX-License-Identifier: MIT
//! Moves blocks with several threads: those of a large file side by side, small files side by side.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, bail};
use pvfs::client::buffer::AlignedBuffer;
use pvfs::limits::PAYLOAD_BYTES_MAX;

use super::content::{Content, Gateways};
use super::plan::Item;
use super::progress::Progress;
use crate::interruption::Interruption;
use crate::unfinished::Existing;

/// Bytes of a block: one round of requests to all iods.
const BLOCK_BYTES: u64 = PAYLOAD_BYTES_MAX as u64;

/// How files are copied.
pub struct Transfer<'a> {
    /// Ways into PVFS.
    pub gateways: &'a Gateways,
    /// Where bytes are counted.
    pub progress: &'a Progress,
    /// What ends it early.
    pub interruption: &'a Interruption,
    /// Threads, and so blocks on their way.
    pub jobs: u16,
    /// Whether each copy is made durable.
    pub sync: bool,
}

impl Transfer<'_> {
    /// Copies all; returns what failed, in words.
    pub fn copy(&self, files: &[Item]) -> Vec<String> {
        self.each(files, |item, jobs| self.copy_file(item, jobs))
    }

    /// Reads all again, both ends, and returns what differs or cannot be read.
    pub fn verify(&self, files: &[Item]) -> Vec<String> {
        self.each(files, |item, jobs| self.verify_file(item, jobs))
    }

    /// Large files one after another, each with all jobs; the small ones with one job each.
    fn each(
        &self,
        files: &[Item],
        action: impl Fn(&Item, u16) -> anyhow::Result<()> + Sync,
    ) -> Vec<String> {
        let failures = Mutex::new(Vec::new());
        let attempt = |item: &Item, jobs| {
            let outcome = self.interruption.check().and_then(|()| action(item, jobs));
            if let Err(error) = outcome {
                failures
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(format!("{error:#}"));
            }
        };
        let (small, large): (Vec<&Item>, Vec<&Item>) = files
            .iter()
            .partition(|item| item.metadata.len() <= BLOCK_BYTES);
        for item in large {
            attempt(item, self.jobs);
        }
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..self.jobs {
                scope.spawn(|| {
                    while let Some(item) = small.get(next.fetch_add(1, Ordering::Relaxed)) {
                        attempt(item, 1);
                    }
                });
            }
        });
        failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn copy_file(&self, item: &Item, jobs: u16) -> anyhow::Result<()> {
        let context = || {
            format!(
                "{} is not copied to {}",
                item.from.display(),
                item.to.display()
            )
        };
        let from = self.gateways.read(&item.from).with_context(context)?;
        let mode = std::os::unix::fs::MetadataExt::mode(&item.metadata);
        let (to, unfinished) = self.gateways.write(&item.to, mode).with_context(context)?;
        let moved = self.blocks(item.metadata.len(), jobs, |offset, buffer| {
            from.read_at(offset, buffer)?;
            to.write_at(offset, buffer)
        });
        let synced = if self.sync && moved.is_ok() {
            to.sync()
        } else {
            Ok(())
        };
        let closed = close_both(from, to);
        let copied = moved.and(synced).and(closed);
        copied
            .and_then(|()| match unfinished {
                Some(unfinished) => unfinished.finish(Existing::Replaced),
                None => Ok(()),
            })
            .with_context(context)
    }

    fn verify_file(&self, item: &Item, jobs: u16) -> anyhow::Result<()> {
        let context = || format!("{} cannot be verified", item.to.display());
        let from = self.gateways.read(&item.from).with_context(context)?;
        let to = self.gateways.read(&item.to).with_context(context)?;
        let compared = self.blocks(item.metadata.len(), jobs, |offset, buffer| {
            let mut copy = AlignedBuffer::new(buffer.len());
            from.read_at(offset, buffer)?;
            to.read_at(offset, &mut copy)?;
            match buffer.iter().zip(copy.iter()).position(|(a, b)| a != b) {
                None => Ok(()),
                Some(at) => bail!("it differs from the source at byte {}", offset + at as u64),
            }
        });
        let closed = close_both(from, to);
        compared.and(closed).with_context(context)
    }

    /// Calls `action` with every block's offset and a buffer of its length, from `jobs` threads;
    /// after a failure no further block is begun.
    fn blocks(
        &self,
        size: u64,
        jobs: u16,
        action: impl Fn(u64, &mut [u8]) -> anyhow::Result<()> + Sync,
    ) -> anyhow::Result<()> {
        let next = AtomicU64::new(0);
        let failed = AtomicBool::new(false);
        let work = || -> anyhow::Result<()> {
            let mut buffer = AlignedBuffer::new(usize::try_from(BLOCK_BYTES.min(size))?);
            while !failed.load(Ordering::Relaxed) {
                let offset = next.fetch_add(BLOCK_BYTES, Ordering::Relaxed);
                if offset >= size {
                    break;
                }
                self.interruption.check()?;
                let length = BLOCK_BYTES.min(size - offset);
                let block = buffer
                    .get_mut(..usize::try_from(length)?)
                    .context("block length")?;
                let result = action(offset, block);
                if result.is_err() {
                    failed.store(true, Ordering::Relaxed);
                    return result;
                }
                self.progress.add(length);
            }
            Ok(())
        };
        if jobs == 1 {
            return work();
        }
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            threads
                .into_iter()
                .map(|thread| {
                    thread
                        .join()
                        .unwrap_or_else(|_| bail!("a copying thread panicked"))
                })
                .fold(Ok(()), anyhow::Result::and)
        })
    }
}

fn close_both(from: Content, to: Content) -> anyhow::Result<()> {
    let to = to.close();
    from.close().and(to)
}
