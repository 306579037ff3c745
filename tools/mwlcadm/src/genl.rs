// SPDX-License-Identifier: MIT
//! Generic netlink requests and their answers, with the kernel's own words for a refusal.
//!
//! neli gives the socket. Its typed layer loses the extended acknowledgement when it converts an
//! error, and we have a tested codec for attributes already, so messages are framed here.

use std::ffi::CStr;

use ipvs_mwlc::director::netlink::{Attributes, Encoder, Full};
use neli::consts::socket::{Msg, NlFamily};
use neli::socket::NlSocket;
use neli::utils::Groups;

use crate::error::Error;

/// The largest request that is sent, in bytes.
const REQUEST_BYTES_MAX: usize = 4096;
/// Larger than any message of a dump, which the kernel limits to 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that changes underneath is begun again this many times.
const DUMP_ATTEMPTS_MAX: usize = 8;

const MESSAGE_HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;

const CONTROLLER_ID: u16 = 16;
const CONTROLLER_GET_FAMILY: u8 = 3;
const CONTROLLER_ATTR_ID: u16 = 1;
const CONTROLLER_ATTR_NAME: u16 = 2;
const CONTROLLER_ATTR_COMMANDS: u16 = 6;
const CONTROLLER_ATTR_GROUPS: u16 = 7;
const COMMAND_ATTR_NUMBER: u16 = 1;
const GROUP_ATTR_NAME: u16 = 1;
const GROUP_ATTR_ID: u16 = 2;

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENOBUFS: i32 = 105;

/// One answer of the kernel: its command number and the bytes of its attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The command.
    pub command: u8,
    /// Its attributes.
    pub attributes: Vec<u8>,
}

/// What came in a multicast group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// These messages.
    Messages(Vec<Answer>),
    /// The kernel had no room for more: some were lost.
    Missed,
}

/// A socket that speaks one generic netlink family.
pub struct Connection {
    socket: NlSocket,
    family: u16,
    commands: Vec<u8>,
    groups: Vec<(String, u32)>,
    sequence: u32,
}

impl Connection {
    /// Connects to the family of this name, or `None` if the kernel has none.
    pub fn open(family: &CStr) -> Result<Option<Connection>, Error> {
        let failed = |what| move |source| Error::Socket { what, source };
        let socket = NlSocket::connect(NlFamily::Generic, None, Groups::empty())
            .map_err(failed("cannot be opened"))?;
        // Old kernels have no extended acknowledgement; errors are then plain.
        let _ = socket.enable_ext_ack(true);
        let mut connection = Connection {
            socket,
            family: CONTROLLER_ID,
            commands: Vec::new(),
            groups: Vec::new(),
            sequence: 0,
        };
        let action = format!("looking for netlink family {}", family.to_string_lossy());
        let write = |encoder: &mut Encoder<'_>| {
            encoder.bytes(CONTROLLER_ATTR_NAME, family.to_bytes_with_nul())
        };
        let answers = match connection.get(&action, CONTROLLER_GET_FAMILY, write) {
            Ok(answers) => answers,
            Err(Error::Refused { errno: ENOENT, .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let family = answers
            .first()
            .and_then(|answer| Family::parse(&answer.attributes));
        let family = family.ok_or_else(|| Error::Reply {
            action,
            what: "the family has no number".to_owned(),
        })?;
        connection.family = family.id;
        connection.commands = family.commands;
        connection.groups = family.groups;
        Ok(Some(connection))
    }

    /// The numbers of the commands that the family has in this kernel.
    pub fn commands(&self) -> &[u8] {
        &self.commands
    }

    /// Joins a multicast group of the family; whether it has one of this name.
    pub fn join(&self, group: &CStr) -> Result<bool, Error> {
        let name = group.to_string_lossy();
        let Some((_, id)) = self.groups.iter().find(|(known, _)| *known == name) else {
            return Ok(false);
        };
        let joined = self.socket.add_mcast_membership(Groups::new_groups(&[*id]));
        joined.map_err(|source| Error::Socket {
            what: "the multicast group cannot be joined (CAP_NET_ADMIN is needed)",
            source,
        })?;
        Ok(true)
    }

    /// Waits for the next messages of a group that was joined.
    pub fn hear(&self) -> Result<Heard, Error> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        match self.socket.recv(&mut buffer[..], Msg::empty()) {
            Ok((length, _)) => {
                let datagram = buffer.get(..length).unwrap_or_default();
                let ours = Messages(datagram).filter(|message| message.kind == self.family);
                let messages = ours.filter_map(|message| message.answer()).collect();
                Ok(Heard::Messages(messages))
            }
            Err(error) if error.raw_os_error() == Some(ENOBUFS) => Ok(Heard::Missed),
            Err(source) => Err(Error::Socket {
                what: "cannot be read",
                source,
            }),
        }
    }

    /// The family's number in this kernel.
    pub const fn family(&self) -> u16 {
        self.family
    }

    /// A request that changes something: acknowledged or refused.
    pub fn act(
        &mut self,
        action: &str,
        command: u8,
        write: impl Fn(&mut Encoder<'_>) -> Result<(), Full>,
    ) -> Result<(), Error> {
        self.get(action, command, write).map(|_| ())
    }

    /// A request for answers, not a dump.
    pub fn get(
        &mut self,
        action: &str,
        command: u8,
        write: impl Fn(&mut Encoder<'_>) -> Result<(), Full>,
    ) -> Result<Vec<Answer>, Error> {
        self.send(action, command, NLM_F_REQUEST | NLM_F_ACK, &write)?;
        self.receive(action).map(|(answers, _)| answers)
    }

    /// A dump, whole and consistent.
    pub fn dump(
        &mut self,
        action: &str,
        command: u8,
        write: impl Fn(&mut Encoder<'_>) -> Result<(), Full>,
    ) -> Result<Vec<Answer>, Error> {
        for _ in 0..DUMP_ATTEMPTS_MAX {
            self.send(action, command, NLM_F_REQUEST | NLM_F_DUMP, &write)?;
            let (answers, interrupted) = self.receive(action)?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(Error::Reply {
            action: action.to_owned(),
            what: format!("it changed during each of {DUMP_ATTEMPTS_MAX} dumps: try again"),
        })
    }

    fn send(
        &mut self,
        action: &str,
        command: u8,
        flags: u16,
        write: &impl Fn(&mut Encoder<'_>) -> Result<(), Full>,
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut buffer = [0; REQUEST_BYTES_MAX];
        let mut encoder = Encoder::new(&mut buffer);
        write(&mut encoder).map_err(|Full| Error::TooLong {
            action: action.to_owned(),
        })?;
        let message = frame(
            self.family,
            flags,
            self.sequence,
            command,
            encoder.written(),
        );
        let sent = self.socket.send(&message, Msg::empty());
        sent.map(|_| ()).map_err(|source| Error::Socket {
            what: "cannot be written",
            source,
        })
    }

    /// Every answer up to the acknowledgement or the end of the dump, and whether the dump was
    /// interrupted by a change.
    fn receive(&mut self, action: &str) -> Result<(Vec<Answer>, bool), Error> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let mut answers = Vec::new();
        let mut interrupted = false;
        loop {
            let (length, _) =
                self.socket
                    .recv(&mut buffer[..], Msg::empty())
                    .map_err(|source| Error::Socket {
                        what: "cannot be read",
                        source,
                    })?;
            let datagram = buffer.get(..length).unwrap_or_default();
            for message in Messages(datagram) {
                // An answer to an earlier request that was given up.
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match message.refusal() {
                            None => Ok((answers, interrupted)),
                            Some((EPERM, _)) => Err(Error::NotPermitted {
                                action: action.to_owned(),
                            }),
                            Some((errno, message)) => Err(Error::Refused {
                                action: action.to_owned(),
                                errno,
                                message,
                            }),
                        };
                    }
                    kind if kind == self.family => answers.extend(message.answer()),
                    _ => {}
                }
            }
        }
    }
}

/// What the kernel says of a family.
struct Family {
    id: u16,
    commands: Vec<u8>,
    groups: Vec<(String, u32)>,
}

impl Family {
    fn parse(attributes: &[u8]) -> Option<Family> {
        let table = Attributes::new(attributes).table::<8>().ok()?;
        let list = |kind| {
            let nest = table.get(kind).map(|nest| nest.nested());
            nest.into_iter().flatten().filter_map(Result::ok)
        };
        let commands = list(CONTROLLER_ATTR_COMMANDS).filter_map(|entry| {
            let entry = entry.nested().table::<3>().ok()?;
            u8::try_from(entry.get(COMMAND_ATTR_NUMBER)?.u32().ok()?).ok()
        });
        let groups = list(CONTROLLER_ATTR_GROUPS).filter_map(|entry| {
            let entry = entry.nested().table::<3>().ok()?;
            let name = entry.get(GROUP_ATTR_NAME)?.string(usize::MAX).ok()?;
            let id = entry.get(GROUP_ATTR_ID)?.u32().ok()?;
            Some((String::from_utf8_lossy(name).into_owned(), id))
        });
        Some(Family {
            id: table.get(CONTROLLER_ATTR_ID)?.u16().ok()?,
            commands: commands.collect(),
            groups: groups.collect(),
        })
    }
}

/// A whole message.
pub fn frame(family: u16, flags: u16, sequence: u32, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = MESSAGE_HEADER_BYTES + GENERIC_HEADER_BYTES + attributes.len();
    let mut message = Vec::with_capacity(length);
    // A request is at most REQUEST_BYTES_MAX long, so its length always fits.
    message.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

/// The messages of a datagram; bytes that are no message end it.
struct Messages<'a>(&'a [u8]);

struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Message<'a>> {
        let [l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..] =
            *self.0.first_chunk::<MESSAGE_HEADER_BYTES>()?;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
        let body = self.0.get(MESSAGE_HEADER_BYTES..length)?;
        let next = length.checked_next_multiple_of(4)?;
        self.0 = self.0.get(next..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            body,
        })
    }
}

impl Message<'_> {
    fn answer(&self) -> Option<Answer> {
        let [command, ..] = *self.body.first_chunk::<GENERIC_HEADER_BYTES>()?;
        let attributes = self.body.get(GENERIC_HEADER_BYTES..)?.to_vec();
        Some(Answer {
            command,
            attributes,
        })
    }

    /// The errno and the kernel's words of an error or of a dump's end; `None` if all went well.
    fn refusal(&self) -> Option<(i32, Option<String>)> {
        let (code, rest) = match self.body.split_first_chunk::<4>() {
            Some((code, rest)) => (i32::from_ne_bytes(*code), rest),
            None => (0, self.body),
        };
        let errno = code.checked_neg().filter(|errno| *errno > 0)?;
        let attributes = match self.kind {
            NLMSG_ERROR => self.after_request(rest),
            _ => Some(rest),
        };
        let has_words = self.flags & NLM_F_ACK_TLVS != 0;
        let words = attributes.filter(|_| has_words).and_then(extended_message);
        Some((errno, words))
    }

    /// What follows the copy of the request in an error: its header alone if capped, else all of it.
    fn after_request<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        if self.flags & NLM_F_CAPPED != 0 {
            return rest.get(MESSAGE_HEADER_BYTES..);
        }
        let length = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
        let length = usize::try_from(length).ok()?.checked_next_multiple_of(4)?;
        rest.get(length.max(MESSAGE_HEADER_BYTES)..)
    }
}

fn extended_message(attributes: &[u8]) -> Option<String> {
    let table = Attributes::new(attributes).table::<8>().ok()?;
    let message = table.get(NLMSGERR_ATTR_MSG)?.string(usize::MAX).ok()?;
    Some(String::from_utf8_lossy(message).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An NLMSG_ERROR or NLMSG_DONE message with this payload.
    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = (16 + body.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([7, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(body);
        bytes
    }

    fn words() -> Vec<u8> {
        let mut buffer = [0; 64];
        let mut encoder = Encoder::new(&mut buffer);
        encoder.string(NLMSGERR_ATTR_MSG, "no such thing").unwrap();
        encoder.u32(2, 40).unwrap();
        encoder.written().to_vec()
    }

    fn refusal(bytes: &[u8]) -> Option<(i32, Option<String>)> {
        Messages(bytes).next().unwrap().refusal()
    }

    #[test]
    fn an_error_with_the_whole_request_and_one_with_its_header() {
        let request = frame(30, 5, 7, 1, &[1; 12]);
        let whole = [&(-22i32).to_ne_bytes()[..], &request, &words()].concat();
        let expected = Some((22, Some("no such thing".to_owned())));
        assert_eq!(
            refusal(&message(NLMSG_ERROR, NLM_F_ACK_TLVS, &whole)),
            expected
        );
        let capped = [&(-22i32).to_ne_bytes()[..], &request[..16], &words()].concat();
        let flags = NLM_F_ACK_TLVS | NLM_F_CAPPED;
        assert_eq!(refusal(&message(NLMSG_ERROR, flags, &capped)), expected);
        assert_eq!(refusal(&message(NLMSG_ERROR, 0, &whole)), Some((22, None)));
    }

    #[test]
    fn an_acknowledgement_and_the_end_of_a_dump_are_no_refusal() {
        let request = frame(30, 5, 7, 1, &[]);
        let ack = [&0i32.to_ne_bytes()[..], &request].concat();
        assert_eq!(refusal(&message(NLMSG_ERROR, 0, &ack)), None);
        assert_eq!(refusal(&message(NLMSG_DONE, 2, &0i32.to_ne_bytes())), None);
        let failed = [&(-3i32).to_ne_bytes()[..], &words()].concat();
        let expected = Some((3, Some("no such thing".to_owned())));
        assert_eq!(
            refusal(&message(NLMSG_DONE, 2 | NLM_F_ACK_TLVS, &failed)),
            expected
        );
    }

    #[test]
    fn a_family_has_commands_and_groups() {
        let mut buffer = [0; 128];
        let mut encoder = Encoder::new(&mut buffer);
        encoder.u16(CONTROLLER_ATTR_ID, 30).unwrap();
        let list = encoder.nest(CONTROLLER_ATTR_COMMANDS).unwrap();
        for (index, command) in [(1, 4), (2, 6)] {
            let entry = encoder.nest(index).unwrap();
            encoder.u32(COMMAND_ATTR_NUMBER, command).unwrap();
            encoder.end_nest(entry).unwrap();
        }
        encoder.end_nest(list).unwrap();
        let list = encoder.nest(CONTROLLER_ATTR_GROUPS).unwrap();
        let entry = encoder.nest(1).unwrap();
        encoder.string(GROUP_ATTR_NAME, "events").unwrap();
        encoder.u32(GROUP_ATTR_ID, 9).unwrap();
        encoder.end_nest(entry).unwrap();
        encoder.end_nest(list).unwrap();
        let family = Family::parse(encoder.written()).unwrap();
        assert_eq!((family.id, family.commands), (30, vec![4, 6]));
        assert_eq!(family.groups, [("events".to_owned(), 9)]);
        assert!(Family::parse(&[]).is_none());
    }

    #[test]
    fn a_datagram_of_several_messages_and_a_torn_one() {
        let one = frame(30, 2, 7, 5, &[8, 0, 1, 0, 1, 2, 3, 4]);
        let two = [one.clone(), one.clone()].concat();
        let answers: Vec<_> = Messages(&two)
            .filter_map(|message| message.answer())
            .collect();
        assert_eq!(answers.len(), 2);
        assert_eq!(
            answers[0],
            Answer {
                command: 5,
                attributes: vec![8, 0, 1, 0, 1, 2, 3, 4]
            }
        );
        for end in 1..one.len() {
            assert_eq!(Messages(&one[..end]).count(), 0, "{end}");
        }
        let mut liar = one;
        liar[0] = 3;
        assert_eq!(Messages(&liar).count(), 0);
    }
}
