// SPDX-License-Identifier: MIT
//! What the product logs, as lines of the simulation's own log.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

use crate::machine::World;

/// Takes what the product logs.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(world) = World::current() {
            world.note(String::from_utf8_lossy(bytes).trim_end());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// From now on, what the product logs goes to the log of the simulation. `SIMULATION_LOG` says how
/// much: a filter as for `--log` of the daemons.
pub fn take_product_logs() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SIMULATION_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_ansi(false)
        .with_target(false)
        .with_writer(Lines)
        .finish();
    // Another test of this process has set it.
    let _ = tracing::subscriber::set_global_default(subscriber);
}
