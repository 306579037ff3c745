// SPDX-License-Identifier: MIT
//! On the director: hears the module's questions and answers them.
//!
//! One thread hears, a few answer, for a look into a network file system may take its time. What they
//! cannot keep up with is dropped: those connections keep their service's expected size.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ipvs_mwlc::director::limits::CONNECTION_SIZE_BYTES_MAX;
use ipvs_mwlc::director::mwlc_family::{SizeQuestion, encode_question, parse_question};
use ipvs_mwlc::uapi::mwlc::{FAMILY_NAME, command, group};
use mwlcadm::genl::{Answer, Connection, Heard};

use crate::answers::Answers;
use crate::receiver;
use crate::report::Key;
use crate::sources::Sources;

/// Threads that answer: looks that may be under way at once.
const ANSWERERS: usize = 8;
/// Questions that wait for one of them, each about a kilobyte. The module does not wait for more
/// than a second, and no mount answers that many in it.
const QUESTIONS_WAITING_MAX: usize = 1024;
/// How often the log hears how many questions there were.
const SUMMARY_PERIOD: Duration = Duration::from_secs(60);

/// What happened since the start.
#[derive(Debug, Default)]
struct Counts {
    known: AtomicU64,
    unknown: AtomicU64,
    dropped: AtomicU64,
}

impl Counts {
    fn log(&self) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        tracing::info!(
            known = count(&self.known),
            unknown = count(&self.unknown),
            dropped = count(&self.dropped),
            "questions so far"
        );
    }
}

/// Answers questions until it is stopped.
pub fn run(sources: Sources, reports: Option<(SocketAddr, Key)>) -> Result<()> {
    if let Some((listen, key)) = reports {
        receiver::start(listen, key, open()?)?;
    }
    let listener = open()?;
    if !listener.join(group::SIZES)? {
        bail!("this kernel's ipvs_mwlc asks no questions: is it older than this program?");
    }
    let shared = Arc::new(Shared {
        sources,
        answers: Answers::new(),
        counts: Counts::default(),
    });
    let (sender, receiver) = sync_channel(QUESTIONS_WAITING_MAX);
    let receiver = Arc::new(Mutex::new(receiver));
    for index in 0..ANSWERERS {
        let connection = open()?;
        let (shared, receiver) = (shared.clone(), receiver.clone());
        thread::Builder::new()
            .name(format!("answer{index}"))
            .spawn(move || answer(&shared, &receiver, connection))
            .context("cannot start a thread")?;
    }
    tracing::info!("answering questions for sizes");
    hear(&listener, &sender, &shared.counts)
}

struct Shared {
    sources: Sources,
    answers: Answers,
    counts: Counts,
}

fn open() -> Result<Connection> {
    Connection::open(FAMILY_NAME)?.context("this kernel has no ipvs_mwlc: modprobe ipvs_mwlc")
}

fn hear(listener: &Connection, sender: &SyncSender<SizeQuestion>, counts: &Counts) -> Result<()> {
    let mut summary = Instant::now() + SUMMARY_PERIOD;
    loop {
        match listener.hear()? {
            Heard::Missed => {
                counts.dropped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("questions came faster than they could be read; some are lost");
            }
            Heard::Messages(messages) => {
                for message in messages {
                    if message.command == command::GET_SIZE && !pass_on(&message, sender, counts) {
                        return Ok(());
                    }
                }
            }
        }
        if Instant::now() >= summary {
            counts.log();
            summary = Instant::now() + SUMMARY_PERIOD;
        }
    }
}

/// Gives a question to those who answer; false if there are none any more.
fn pass_on(message: &Answer, sender: &SyncSender<SizeQuestion>, counts: &Counts) -> bool {
    let question = match parse_question(&message.attributes) {
        Ok(question) => question,
        Err(reject) => {
            let why = reject.message.to_string_lossy();
            tracing::warn!("a question that makes no sense: {why}");
            return true;
        }
    };
    match sender.try_send(question) {
        Ok(()) => true,
        Err(TrySendError::Full(_)) => {
            counts.dropped.fetch_add(1, Ordering::Relaxed);
            true
        }
        Err(TrySendError::Disconnected(_)) => false,
    }
}

/// One answering thread; ends with the one that hears.
fn answer(shared: &Shared, receiver: &Mutex<Receiver<SizeQuestion>>, mut connection: Connection) {
    loop {
        let next = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(question) = next else {
            return;
        };
        let name = question.name;
        let look = || shared.sources.size(name.host(), name.path());
        let size = shared
            .answers
            .get(name.bytes(), Instant::now(), look)
            .map(|bytes| bytes.min(CONNECTION_SIZE_BYTES_MAX));
        let counter = match size {
            Some(_) => &shared.counts.known,
            None => &shared.counts.unknown,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(
            host = %name.host().escape_ascii(),
            path = %name.path().escape_ascii(),
            size,
            "answer"
        );
        let told = connection.act("telling a size", command::SET_SIZE, |encoder| {
            encode_question(encoder, &question, size)
        });
        if let Err(error) = told {
            tracing::warn!("{error}");
        }
    }
}
