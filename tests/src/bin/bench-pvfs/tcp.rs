// SPDX-License-Identifier: MIT
//! TCP on the loopback, alone: what moving the bytes costs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::anyhow;

use crate::load::{BLOCK_BYTES, SMALL_BYTES, pattern};

/// Bytes of a request for a small piece: a frame's header and a small body.
const REQUEST_BYTES: usize = 64;

fn pair() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

/// Sends `bytes` in blocks over each of `streams` connections; GB/s of all together.
pub fn stream(streams: usize, bytes: u64) -> anyhow::Result<f64> {
    let pairs: Vec<_> = (0..streams)
        .map(|_| pair())
        .collect::<anyhow::Result<_>>()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (mut near, mut far) in pairs {
            scope.spawn(move || -> anyhow::Result<()> {
                let block = pattern(BLOCK_BYTES);
                for _ in 0..bytes / BLOCK_BYTES as u64 {
                    far.write_all(&block)?;
                }
                Ok(())
            });
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                let mut block = vec![0; BLOCK_BYTES];
                for _ in 0..bytes / BLOCK_BYTES as u64 {
                    near.read_exact(&mut block)?;
                }
                Ok(())
            }));
        }
        for thread in threads {
            thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    Ok(bytes as f64 * streams as f64 / start.elapsed().as_secs_f64() / 1e9)
}

/// Asks for a small piece and waits for it, again and again, over `jobs` connections; per second.
pub fn round_trips(jobs: usize, time: Duration) -> anyhow::Result<f64> {
    let pairs: Vec<_> = (0..jobs).map(|_| pair()).collect::<anyhow::Result<_>>()?;
    let start = Instant::now();
    let count = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (mut near, mut far) in pairs {
            scope.spawn(move || {
                let (mut request, reply) = ([0; REQUEST_BYTES], [0; SMALL_BYTES]);
                while far.read_exact(&mut request).is_ok() && far.write_all(&reply).is_ok() {}
            });
            threads.push(scope.spawn(move || -> anyhow::Result<u64> {
                let (request, mut reply) = ([0; REQUEST_BYTES], [0; SMALL_BYTES]);
                let mut count = 0;
                while start.elapsed() < time {
                    near.write_all(&request)?;
                    near.read_exact(&mut reply)?;
                    count += 1;
                }
                Ok(count)
            }));
        }
        let mut sum = 0;
        for thread in threads {
            sum += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(sum)
    })?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}
