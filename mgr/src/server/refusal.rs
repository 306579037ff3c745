// SPDX-License-Identifier: MIT
//! What a peer hears whose port is not reserved: why, and then the connection's end.

use std::io;
use std::time::Duration;

use pvfs::limits::{REFUSED_BYTES_MAX, REFUSED_LINGER_MS};
use pvfs::wire::header::FrameHeader;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, sink};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Says why and throws away what the peer has sent: with anything of it unread, the kernel would
/// reset the connection, and the peer might lose the answer.
pub(super) async fn tell(mut stream: TcpStream) {
    let told = timeout(Duration::from_millis(REFUSED_LINGER_MS), async {
        stream
            .write_all(&FrameHeader::port_refused().to_bytes())
            .await?;
        stream.shutdown().await?;
        let mut unread = stream.take(REFUSED_BYTES_MAX as u64);
        copy(&mut unread, &mut sink()).await?;
        io::Result::Ok(())
    });
    // Whoever does not listen is refused all the same.
    let _ = told.await;
}
