// SPDX-License-Identifier: MIT
//! Malformed requests to the families `IPVS` and `ipvs_mwlc`, and their answers.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail, ensure};
use ipvs_mwlc::director::netlink::{Encoder, Full};
use ipvs_mwlc::uapi::{ipvs, mwlc};
use mwlcadm::genl::Connection;
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;
use nix::errno::Errno;

const RECEIVE_BYTES: usize = 64 * 1024;
/// The longest attributes that are made; the kernel takes much longer messages.
const LONG_BYTES: usize = 30_000;
const NESTING_MAX: usize = 64;

const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// What became of the messages.
#[derive(Default)]
pub(crate) struct Tally {
    accepted: u64,
    /// By errno.
    refused: BTreeMap<i32, u64>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refused: u64 = self.refused.values().sum();
        write!(
            f,
            "{} netlink messages: {} accepted",
            self.accepted + refused,
            self.accepted
        )?;
        self.refused
            .iter()
            .try_for_each(|(errno, count)| write!(f, ", {count} {:?}", Errno::from_raw(*errno)))
    }
}

/// One of the two families.
struct Target {
    number: u16,
    /// The largest command number.
    commands: u8,
    /// The commands that answer dumps.
    dumps: &'static [u8],
    /// Attributes that make some commands of it right.
    example: Vec<u8>,
}

/// What the kernel answered.
struct Verdict {
    errno: i32,
    has_words: bool,
}

/// Sends `count` requests and checks each answer.
pub(crate) fn send(count: u64, rng: &mut fastrand::Rng) -> anyhow::Result<Tally> {
    let targets = [
        Target {
            number: family_number(ipvs::FAMILY_NAME)?,
            commands: ipvs::command::FLUSH,
            dumps: &[
                ipvs::command::GET_SERVICE,
                ipvs::command::GET_DEST,
                ipvs::command::GET_DAEMON,
            ],
            example: ipvs_example().map_err(|Full| anyhow::anyhow!("the example is too long"))?,
        },
        Target {
            number: family_number(mwlc::FAMILY_NAME)?,
            commands: mwlc::command::SET_CONN,
            dumps: &[
                mwlc::command::GET_SERVICE,
                mwlc::command::GET_DEST,
                mwlc::command::GET_CONN,
            ],
            example: mwlc_example().map_err(|Full| anyhow::anyhow!("the example is too long"))?,
        },
    ];
    let socket = open()?;
    let mut tally = Tally::default();
    let mut sequence = 0u32;
    for index in 0..count {
        let target = &targets[rng.usize(..targets.len())];
        sequence = sequence.wrapping_add(1);
        let message = message(target, sequence, rng);
        let verdict = exchange(&socket, &message, sequence)
            .with_context(|| format!("message {index}: {}", hex(&message)))?;
        match verdict.errno {
            0 => tally.accepted += 1,
            errno => {
                let errno = Errno::from_raw(errno);
                ensure!(
                    verdict.has_words || decided_by_netlink(errno, &message),
                    "message {index} was refused with {errno:?} without a word: {}",
                    hex(&message)
                );
                *tally.refused.entry(errno as i32).or_default() += 1;
            }
        }
    }
    Ok(tally)
}

/// Refusals of the generic netlink layer itself, which are none of the director's: a command that the
/// family has not, and a message without a whole header.
fn decided_by_netlink(errno: Errno, message: &[u8]) -> bool {
    errno == Errno::EOPNOTSUPP || message.len() < HEADER_BYTES + GENERIC_HEADER_BYTES
}

fn family_number(name: &std::ffi::CStr) -> anyhow::Result<u16> {
    let connection = Connection::open(name)?;
    let name = name.to_string_lossy();
    let connection = connection.with_context(|| format!("the kernel has no family {name}"))?;
    Ok(connection.family())
}

/// A socket that does not wait: the kernel answers within the call that sends, and goes on with a dump
/// within the call that receives. Nothing to read is no answer.
fn open() -> anyhow::Result<NlSocket> {
    let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty())
        .context("opening a netlink socket")?;
    socket.nonblock().context("making it not wait")?;
    socket
        .enable_ext_ack(true)
        .context("enabling extended acknowledgements")?;
    Ok(socket)
}

/// Sends a message and reads up to the answer that ends it.
fn exchange(socket: &NlSocket, message: &[u8], sequence: u32) -> anyhow::Result<Verdict> {
    socket.send(message, Msg::empty()).context("sending")?;
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let received = socket.recv(&mut buffer[..], Msg::empty());
        let (length, _) = received.context("there is no answer")?;
        if let Some(verdict) = verdict(&buffer[..length], sequence)? {
            return Ok(verdict);
        }
    }
}

/// The verdict in a datagram, if it ends the answer to this message.
fn verdict(mut datagram: &[u8], sequence: u32) -> anyhow::Result<Option<Verdict>> {
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] = *header;
        let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let kind = u16::from_ne_bytes([k0, k1]);
        let flags = u16::from_ne_bytes([f0, f1]);
        ensure!(
            (HEADER_BYTES..=datagram.len()).contains(&length),
            "a torn answer"
        );
        ensure!(
            u32::from_ne_bytes([s0, s1, s2, s3]) == sequence,
            "an answer to another message"
        );
        if kind == NLMSG_ERROR || kind == NLMSG_DONE {
            let Some(code) = datagram[HEADER_BYTES..length].first_chunk::<4>() else {
                bail!("an end without an error number");
            };
            let errno = -i32::from_ne_bytes(*code);
            ensure!((0..4096).contains(&errno), "{errno} is no errno");
            return Ok(Some(Verdict {
                errno,
                has_words: flags & NLM_F_ACK_TLVS != 0,
            }));
        }
        datagram = &datagram[length.next_multiple_of(4).min(datagram.len())..];
    }
    Ok(None)
}

/// A request with a right netlink header - the kernel must be able to answer it - and anything after.
fn message(target: &Target, sequence: u32, rng: &mut fastrand::Rng) -> Vec<u8> {
    let command = match rng.u8(..8) {
        0 => rng.u8(..),
        _ => rng.u8(0..=target.commands + 1),
    };
    let mut body = vec![command, rng.u8(..), rng.u8(..), rng.u8(..)];
    body.extend(attributes(&target.example, rng));
    if rng.u8(..64) == 0 {
        body.truncate(rng.usize(..=GENERIC_HEADER_BYTES));
    }
    // Sometimes the wrong way round.
    let dumps = target.dumps.contains(&command) != (rng.u8(..16) == 0);
    let how = if dumps { NLM_F_DUMP } else { NLM_F_ACK };
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(((HEADER_BYTES + body.len()) as u32).to_ne_bytes());
    message.extend(target.number.to_ne_bytes());
    message.extend((NLM_F_REQUEST | how).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// Attributes that are right, nearly right, or nothing like it.
fn attributes(example: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = example.to_vec();
    match rng.u8(..10) {
        0 => {}
        1 => bytes.truncate(rng.usize(..=example.len())),
        2 => bytes.extend(noise(rng, 64)),
        3 => bytes = noise(rng, 600),
        4 => bytes = random_attributes(rng),
        5 => bytes = deep_nest(rng),
        6 => {
            // A length that lies.
            let at = rng.usize(..example.len() / 4) * 4;
            bytes[at..at + 2].copy_from_slice(&rng.u16(..).to_ne_bytes());
        }
        7 => bytes.extend_from_slice(example),
        8 => bytes = attribute(rng.u16(..16), &noise(rng, LONG_BYTES)),
        _ => {
            for _ in 0..rng.usize(1..=8) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
        }
    }
    bytes
}

fn noise(rng: &mut fastrand::Rng, bytes_max: usize) -> Vec<u8> {
    let length = rng.usize(..=bytes_max);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

/// Attributes that are well-formed, with types and lengths of no sense.
fn random_attributes(rng: &mut fastrand::Rng) -> Vec<u8> {
    let inner = |rng: &mut fastrand::Rng| -> Vec<u8> {
        (0..rng.usize(..12))
            .flat_map(|_| attribute(rng.u16(..20), &noise(rng, 24)))
            .collect()
    };
    (0..rng.usize(1..4))
        .flat_map(|_| attribute(rng.u16(..8), &inner(rng)))
        .collect()
}

fn deep_nest(rng: &mut fastrand::Rng) -> Vec<u8> {
    let depth = rng.usize(1..=NESTING_MAX);
    (0..depth).fold(noise(rng, 8), |inside, _| attribute(rng.u16(1..4), &inside))
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).unwrap_or(u16::MAX);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// A service, a destination and timeouts: right for every command of `IPVS`.
fn ipvs_example() -> Result<Vec<u8>, Full> {
    use ipvs::{attribute, dest, service};
    let mut buffer = [0; 512];
    let mut encoder = Encoder::new(&mut buffer);
    let nest = encoder.nest(attribute::SERVICE)?;
    encoder.u16(service::AF, 2)?;
    encoder.u16(service::PROTOCOL, 6)?;
    encoder.bytes(service::ADDR, &VIP)?;
    encoder.be16(service::PORT, 80)?;
    encoder.string(service::SCHED_NAME, "mwlc")?;
    encoder.bytes(service::FLAGS, &[0, 0, 0, 0, 255, 255, 255, 255])?;
    encoder.u32(service::TIMEOUT, 0)?;
    encoder.bytes(service::NETMASK, &[255; 4])?;
    encoder.end_nest(nest)?;
    let nest = encoder.nest(attribute::DEST)?;
    encoder.bytes(
        dest::ADDR,
        &[10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    )?;
    encoder.be16(dest::PORT, 80)?;
    encoder.u32(dest::FWD_METHOD, 3)?;
    encoder.u32(dest::WEIGHT, 1)?;
    encoder.u32(dest::U_THRESH, 0)?;
    encoder.u32(dest::L_THRESH, 0)?;
    encoder.u16(dest::ADDR_FAMILY, 2)?;
    encoder.end_nest(nest)?;
    encoder.u32(attribute::TIMEOUT_TCP, 900)?;
    Ok(encoder.written().to_vec())
}

const VIP: [u8; 16] = [10, 0, 0, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A service's expected size and a connection's size: right for every command of `ipvs_mwlc`.
fn mwlc_example() -> Result<Vec<u8>, Full> {
    use mwlc::{attribute, conn, service};
    let mut buffer = [0; 512];
    let mut encoder = Encoder::new(&mut buffer);
    let nest = encoder.nest(attribute::SERVICE)?;
    encoder.u16(service::AF, 2)?;
    encoder.u16(service::PROTOCOL, 6)?;
    encoder.bytes(service::ADDR, &VIP)?;
    encoder.be16(service::PORT, 80)?;
    encoder.u64(service::EXPECTED_SIZE, 1 << 20)?;
    encoder.u8(service::SIZE_POLICY, 1)?;
    encoder.end_nest(nest)?;
    let nest = encoder.nest(attribute::CONN)?;
    encoder.u16(conn::AF, 2)?;
    encoder.u16(conn::PROTOCOL, 6)?;
    encoder.bytes(conn::CLIENT_ADDR, &VIP)?;
    encoder.be16(conn::CLIENT_PORT, 40_000)?;
    encoder.bytes(conn::VIRTUAL_ADDR, &VIP)?;
    encoder.be16(conn::VIRTUAL_PORT, 80)?;
    encoder.u64(conn::SIZE_BYTES, 1 << 30)?;
    encoder.end_nest(nest)?;
    Ok(encoder.written().to_vec())
}

/// The start of a message, for a report.
fn hex(message: &[u8]) -> String {
    let shown: Vec<String> = message
        .iter()
        .take(256)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let more = if message.len() > 256 { "..." } else { "" };
    format!("{}{more} ({} bytes)", shown.concat(), message.len())
}
