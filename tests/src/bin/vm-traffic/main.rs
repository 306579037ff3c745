// SPDX-License-Identifier: MIT
//! Traffic for the director's tests, inside the guest: a server that says its name, a client that does
//! as it is told, and a flood.
//!
//! The client reads one command a line and answers each with one line, so that a test can hold
//! connections open and end them one by one:
//!
//! ```text
//! open COUNT    open COUNT connections, one after another     ID:SERVER:PORT ...
//! udp COUNT     the same with UDP                             ID:SERVER:PORT ...
//! ping ID       is it alive? a byte there and back            pong
//! close ID      end it with a FIN                             closed
//! reset ID      end it with a RST                             reset
//! ```
//! SERVER is what the server said, PORT the client's own. Anything that fails answers `error ...`.

mod client;
mod server;

use clap::{Parser, Subcommand};
use std::net::SocketAddrV4;
use std::process::ExitCode;
use std::time::Duration;

/// How long anything on the network may take in an emulated guest.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(10);

/// Traffic for the director's tests.
#[derive(Debug, Parser)]
struct Options {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Answers every connection and every datagram with a name, then echoes.
    Serve {
        /// Where to listen, TCP and UDP.
        address: SocketAddrV4,
        /// What to say.
        name: String,
    },
    /// Does what its standard input says.
    Client {
        /// The virtual service.
        service: SocketAddrV4,
    },
    /// Opens and ends connections as fast as it can, whether they succeed or not.
    Flood {
        /// The virtual service.
        service: SocketAddrV4,
        /// For how long, seconds.
        seconds: u64,
        /// How many at a time.
        #[arg(long, default_value_t = 4)]
        threads: u32,
    },
}

fn main() -> ExitCode {
    let result = match Options::parse().role {
        Role::Serve { address, name } => server::serve(address, &name),
        Role::Client { service } => client::obey(service),
        Role::Flood {
            service,
            seconds,
            threads,
        } => {
            let (succeeded, failed) = client::flood(service, Duration::from_secs(seconds), threads);
            println!("succeeded {succeeded} failed {failed}");
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vm-traffic: {error}");
            ExitCode::FAILURE
        }
    }
}
