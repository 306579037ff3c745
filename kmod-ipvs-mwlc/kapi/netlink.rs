// SPDX-License-Identifier: GPL-2.0-only
//! Generic-netlink families, down to bytes: requests as attribute bytes, replies through the pure
//! encoder.
//!
//! The kernel's own attribute parsing is not used (no policy): the pure code parses, is fuzzed in
//! userspace, and names the attribute that it refuses.

use core::marker::PhantomData;
use core::pin::Pin;

use kernel::error::to_result;
use kernel::prelude::*;
use kernel::sync::rcu::Guard;
use kernel::types::Opaque;

use super::atomic::{Acquire, Atomic, Release};
use super::bindings;
use super::pernet::Net;
use super::rcu;
use crate::director::errno::Reject;
use crate::director::netlink::{Encoder, Full};

/// No single reply's attributes are longer; the families' own limits are checked against it where
/// they are defined.
pub(crate) const REPLY_BYTES_MAX: usize = 1024;
/// Both headers of a generic-netlink message.
const HEADER_BYTES: usize = (bindings::MWLC_NLMSG_HDRLEN + bindings::MWLC_GENL_HDRLEN) as usize;

/// A command that a family answers.
pub(crate) struct Operation {
    /// Its number.
    pub(crate) command: u8,
    /// Whether it acts or answers once.
    pub(crate) acts: bool,
    /// Whether it dumps.
    pub(crate) dumps: bool,
}

impl Operation {
    /// A command that acts or answers once.
    pub(crate) const fn acts(command: u8) -> Operation {
        Operation {
            command,
            acts: true,
            dumps: false,
        }
    }

    /// A command that dumps.
    pub(crate) const fn dumps(command: u8) -> Operation {
        Operation {
            command,
            acts: false,
            dumps: true,
        }
    }
}

/// A request.
pub(crate) struct Request<'a> {
    /// The command's number.
    pub(crate) command: u8,
    /// The attributes after the generic-netlink header.
    pub(crate) attributes: &'a [u8],
    /// The namespace of the socket that it came from.
    pub(crate) net: Net,
}

/// Where a dump goes on in the next message; all zero at its start.
pub(crate) type Cursor = [u64; 2];

/// A family. Every command needs `CAP_NET_ADMIN`.
pub(crate) trait Family: 'static {
    /// Its name, at most 15 bytes.
    const NAME: &'static CStr;
    /// Its version.
    const VERSION: u8;
    /// Its commands.
    const OPERATIONS: &'static [Operation];
    /// Its multicast groups, each name at most 15 bytes; only `CAP_NET_ADMIN` may listen.
    const GROUPS: &'static [&'static CStr] = &[];

    /// Through what it is found by those who send to its groups; one static for each family that has
    /// any.
    fn published() -> Option<&'static Published> {
        None
    }

    /// Carries out one command.
    fn act(request: &Request<'_>, reply: &mut Reply) -> core::result::Result<(), Reject>;

    /// Writes entries from `cursor` on, until all are written or one does not fit, and moves the
    /// cursor.
    fn dump(
        request: &Request<'_>,
        cursor: &mut Cursor,
        message: &mut DumpMessage,
    ) -> core::result::Result<(), Reject>;
}

/// The answer to one command; sent if anything was put into it.
pub(crate) struct Reply {
    command: Option<u8>,
    buffer: [u8; REPLY_BYTES_MAX],
    used: usize,
}

impl Reply {
    const fn new() -> Reply {
        Reply {
            command: None,
            buffer: [0; REPLY_BYTES_MAX],
            used: 0,
        }
    }

    /// Answers with `command` and what `encode` writes.
    pub(crate) fn put(
        &mut self,
        command: u8,
        encode: impl FnOnce(&mut Encoder<'_>) -> core::result::Result<(), Full>,
    ) -> core::result::Result<(), Full> {
        let mut encoder = Encoder::new(&mut self.buffer);
        encode(&mut encoder)?;
        self.used = encoder.used();
        self.command = Some(command);
        Ok(())
    }

    /// # Safety
    ///
    /// `info` must be the request's.
    unsafe fn send(&self, info: *mut bindings::genl_info) -> Result {
        let Some(command) = self.command else {
            return Ok(());
        };
        let bytes = self.buffer.get(..self.used).unwrap_or_default();
        // SAFETY: `info` is valid by the function's contract; the message is freed or given away on
        // every path.
        unsafe {
            let skb = bindings::mwlc_genlmsg_new(bytes.len());
            if skb.is_null() {
                return Err(ENOMEM);
            }
            let (port, seq, family) = ((*info).snd_portid, (*info).snd_seq, (*info).family);
            if !append(skb, port, seq, family, 0, command, bytes) {
                bindings::mwlc_nlmsg_free(skb);
                return Err(EMSGSIZE);
            }
            to_result(bindings::mwlc_genlmsg_reply(skb, info))
        }
    }
}

/// One message of a dump.
pub(crate) struct DumpMessage {
    skb: *mut bindings::sk_buff,
    port: u32,
    seq: u32,
    family: *const bindings::genl_family,
}

impl DumpMessage {
    /// Adds an entry, or says that it must go into the next message.
    pub(crate) fn entry(
        &mut self,
        command: u8,
        encode: impl FnOnce(&mut Encoder<'_>) -> core::result::Result<(), Full>,
    ) -> core::result::Result<(), Full> {
        let mut buffer = [0; REPLY_BYTES_MAX];
        let mut encoder = Encoder::new(&mut buffer);
        encode(&mut encoder)?;
        let flags = bindings::MWLC_NLM_F_MULTI;
        // SAFETY: The pointers are those of the running dump, which made this value.
        let fitted = unsafe {
            append(
                self.skb,
                self.port,
                self.seq,
                self.family,
                flags,
                command,
                encoder.written(),
            )
        };
        if fitted {
            Ok(())
        } else {
            Err(Full)
        }
    }
}

/// Adds a message with these attributes to `skb`; false if there is no room, and then nothing was
/// added.
///
/// # Safety
///
/// `skb` is a netlink message under construction, `family` a registered family.
unsafe fn append(
    skb: *mut bindings::sk_buff,
    port: u32,
    seq: u32,
    family: *const bindings::genl_family,
    flags: i32,
    command: u8,
    attributes: &[u8],
) -> bool {
    // SAFETY: By the function's contract; `skb_put` is within the tailroom that was just compared
    // with.
    unsafe {
        let room = usize::try_from(bindings::mwlc_skb_tailroom(skb)).unwrap_or(0);
        if room < attributes.len().saturating_add(HEADER_BYTES) {
            return false;
        }
        let header = bindings::genlmsg_put(skb, port, seq, family, flags, command);
        if header.is_null() {
            return false;
        }
        let to = bindings::skb_put(skb, attributes.len() as u32).cast::<u8>();
        core::ptr::copy_nonoverlapping(attributes.as_ptr(), to, attributes.len());
        bindings::mwlc_genlmsg_end(skb, header);
    }
    true
}

/// A family as senders of multicast messages find it: nothing while it is not registered.
///
/// # Invariants
///
/// Null, or a family that stays registered for a grace period after this became null again.
pub(crate) struct Published(Atomic<*mut bindings::genl_family>);

impl Published {
    /// Not registered.
    pub(crate) const fn new() -> Published {
        Published(Atomic::new(core::ptr::null_mut()))
    }

    /// Sends to everybody who listens to group `group`, an index into [`Family::GROUPS`], in `net`.
    /// Without a listener this costs one look; a listener whose buffer is full misses the message and
    /// is told so by its socket. Does not sleep.
    pub(crate) fn multicast(
        &self,
        net: Net,
        group: u32,
        command: u8,
        encode: impl FnOnce(&mut Encoder<'_>) -> core::result::Result<(), Full>,
        _guard: &Guard,
    ) {
        let family = self.0.load(Acquire);
        // SAFETY: By the invariants it is null or registered for as long as the guard is held, and
        // the namespace is valid.
        if family.is_null() || !unsafe { bindings::mwlc_has_listeners(family, net.as_ptr(), group) }
        {
            return;
        }
        let mut buffer = [0; REPLY_BYTES_MAX];
        let mut encoder = Encoder::new(&mut buffer);
        if encode(&mut encoder).is_err() {
            return;
        }
        let bytes = encoder.written();
        // SAFETY: As above; the message is freed or given away on every path.
        unsafe {
            let skb = bindings::mwlc_genlmsg_new_atomic(bytes.len());
            if skb.is_null() {
                return;
            }
            if append(skb, 0, 0, family, 0, command, bytes) {
                bindings::mwlc_genlmsg_multicast(family, net.as_ptr(), skb, group);
            } else {
                bindings::mwlc_nlmsg_free(skb);
            }
        }
    }
}

/// A registered family; dropping it unregisters and waits for requests that are under way.
pub(crate) struct Registration<F: Family> {
    family: Pin<KBox<Opaque<bindings::genl_family>>>,
    _operations: KVec<bindings::genl_small_ops>,
    _groups: KVec<bindings::genl_multicast_group>,
    _family: PhantomData<fn() -> F>,
}

// SAFETY: A family may be unregistered from any thread, and there are no methods.
unsafe impl<F: Family> Send for Registration<F> {}
// SAFETY: As above.
unsafe impl<F: Family> Sync for Registration<F> {}

impl<F: Family> Registration<F> {
    /// Registers the family; `EEXIST` if the name is taken.
    pub(crate) fn new(module: &'static ThisModule) -> Result<Self> {
        let mut operations = KVec::with_capacity(F::OPERATIONS.len(), GFP_KERNEL)?;
        for operation in F::OPERATIONS {
            let operation = bindings::genl_small_ops {
                doit: operation.acts.then_some(doit::<F>),
                dumpit: operation.dumps.then_some(dumpit::<F>),
                cmd: operation.command,
                flags: bindings::MWLC_GENL_ADMIN_PERM as u8,
                validate: bindings::MWLC_GENL_DONT_VALIDATE as u8,
                ..Default::default()
            };
            operations
                .push_within_capacity(operation)
                .map_err(|_| ENOMEM)?;
        }
        let mut groups = KVec::with_capacity(F::GROUPS.len(), GFP_KERNEL)?;
        for name in F::GROUPS {
            let mut group = bindings::genl_multicast_group {
                flags: bindings::MWLC_GENL_MCAST_CAP_NET_ADMIN as u8,
                ..Default::default()
            };
            for (to, from) in group.name.iter_mut().zip(name.to_bytes_with_nul()) {
                *to = *from;
            }
            groups.push_within_capacity(group).map_err(|_| ENOMEM)?;
        }
        let mut family = bindings::genl_family {
            version: c_uint::from(F::VERSION),
            n_small_ops: u8::try_from(operations.len()).map_err(|_| EINVAL)?,
            small_ops: operations.as_ptr(),
            // Commands below this keep their own parsing; from here on the kernel would refuse
            // every attribute.
            resv_start_op: u8::MAX,
            n_mcgrps: u8::try_from(groups.len()).map_err(|_| EINVAL)?,
            mcgrps: groups.as_ptr(),
            module: module.as_ptr().cast(),
            ..Default::default()
        };
        for (to, from) in family.name.iter_mut().zip(F::NAME.to_bytes_with_nul()) {
            *to = *from;
        }
        family.set_netnsok(1);
        family.set_parallel_ops(1);
        let family = KBox::pin(Opaque::new(family), GFP_KERNEL)?;
        // SAFETY: The family and its operations stay where they are until it is unregistered.
        to_result(unsafe { bindings::genl_register_family(family.get()) })?;
        if let Some(published) = F::published() {
            // INVARIANT: It is registered; the drop takes it back first.
            published.0.store(family.get(), Release);
        }
        Ok(Registration {
            family,
            _operations: operations,
            _groups: groups,
            _family: PhantomData,
        })
    }
}

impl<F: Family> Drop for Registration<F> {
    fn drop(&mut self) {
        if let Some(published) = F::published() {
            // INVARIANT: Senders that have found it are done when the grace period is.
            published.0.store(core::ptr::null_mut(), Release);
            rcu::synchronize();
        }
        // SAFETY: It was registered by `new`.
        unsafe { bindings::genl_unregister_family(self.family.get()) };
    }
}

/// The attributes of a request.
///
/// # Safety
///
/// `header` is a generic-netlink request that the kernel has checked to have both headers.
unsafe fn attributes<'a>(header: *const bindings::nlmsghdr) -> &'a [u8] {
    // SAFETY: By the function's contract; the message is `nlmsg_len` bytes long.
    unsafe {
        let length = ((*header).nlmsg_len as usize).saturating_sub(HEADER_BYTES);
        core::slice::from_raw_parts(header.cast::<u8>().add(HEADER_BYTES), length)
    }
}

/// Puts the refusal where userspace finds it, and returns its errno.
///
/// # Safety
///
/// `extack` is null or valid, `attributes` are those that the refusal is about.
unsafe fn refuse(
    reject: &Reject,
    extack: *mut bindings::netlink_ext_ack,
    attributes: &[u8],
) -> c_int {
    // SAFETY: By the function's contract.
    if let Some(extack) = unsafe { extack.as_mut() } {
        extack._msg = reject.message.as_char_ptr();
        if let Some(attribute) = reject
            .attribute_offset
            .and_then(|offset| attributes.get(offset..))
        {
            extack.bad_attr = attribute.as_ptr().cast();
        }
    }
    reject.errno.to_kernel()
}

/// # Safety
///
/// Called by generic netlink for a command of a registered `F`.
unsafe extern "C" fn doit<F: Family>(
    _skb: *mut bindings::sk_buff,
    info: *mut bindings::genl_info,
) -> c_int {
    // SAFETY: By the function's contract `info` is valid, and so is everything it points to.
    unsafe {
        let Some(net) = Net::from_raw(bindings::mwlc_info_net(info)) else {
            return EINVAL.to_errno();
        };
        let attributes = attributes((*info).nlhdr);
        let request = Request {
            command: (*(*info).genlhdr).cmd,
            attributes,
            net,
        };
        let mut reply = Reply::new();
        match F::act(&request, &mut reply) {
            Ok(()) => reply
                .send(info)
                .map_or_else(|error| error.to_errno(), |()| 0),
            Err(reject) => refuse(&reject, (*info).extack, attributes),
        }
    }
}

/// # Safety
///
/// Called by generic netlink for a dump of a registered `F`.
unsafe extern "C" fn dumpit<F: Family>(
    skb: *mut bindings::sk_buff,
    callback: *mut bindings::netlink_callback,
) -> c_int {
    // SAFETY: By the function's contract both are valid, and so is everything they point to.
    unsafe {
        let Some(net) = Net::from_raw(bindings::mwlc_skb_net((*callback).skb)) else {
            return EINVAL.to_errno();
        };
        let info = bindings::mwlc_info_of_dump(callback);
        let attributes = attributes((*callback).nlh);
        let request = Request {
            command: (*(*info).genlhdr).cmd,
            attributes,
            net,
        };
        let mut message = DumpMessage {
            skb,
            port: (*info).snd_portid,
            seq: (*(*callback).nlh).nlmsg_seq,
            family: (*info).family,
        };
        let args = &mut (*callback).__bindgen_anon_1.args;
        let mut cursor: Cursor = [args[0] as u64, args[1] as u64];
        let result = F::dump(&request, &mut cursor, &mut message);
        [args[0], args[1]] = cursor.map(|word| word as c_long);
        match result {
            Ok(()) => (*skb).len as c_int,
            Err(reject) => refuse(&reject, (*callback).extack, attributes),
        }
    }
}
