// SPDX-License-Identifier: MIT
//! The layout as virtual extended attributes: `user.pvfs.stripe_size`, `.base`, `.pcount`, `.iods`.
//!
//! On a file they show where it is; on a directory, what new files in it get. Setting one of the
//! first three changes that part of a directory's policy, or lays an empty file out anew. Numbers
//! are decimal; a directory's base `auto` deals files out in turn, its pcount 0 means all iods.

use pvfs::error::FsError;
use pvfs::layout::{Layout, LayoutPolicy};
use pvfs::proto::mgr::MgrResponse;

use super::inode::Inode;
use super::key;
use super::transaction::{Halt, Transaction};

const PREFIX: &[u8] = b"user.pvfs.";
const BASE_IN_TURN: &str = "auto";

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutXattr {
    /// Bytes of one stripe.
    StripeSize,
    /// Position of the first iod among all.
    Base,
    /// How many iods.
    Pcount,
    /// Their ids, separated by commas; read only.
    Iods,
    /// Some other name under `user.pvfs.`, which is reserved.
    Unknown,
}

impl LayoutXattr {
    /// The attribute of this name; `None` for names that are not PVFS's own.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Self> {
        Some(match name.strip_prefix(PREFIX)? {
            b"stripe_size" => Self::StripeSize,
            b"base" => Self::Base,
            b"pcount" => Self::Pcount,
            b"iods" => Self::Iods,
            _ => Self::Unknown,
        })
    }

    fn of_layout(self, layout: &Layout) -> Option<String> {
        match self {
            Self::StripeSize => Some(layout.stripe_size().to_string()),
            Self::Base => Some(layout.base().to_string()),
            Self::Pcount => Some(layout.iods().len().to_string()),
            Self::Iods => {
                let ids: Vec<String> = layout.iods().iter().map(ToString::to_string).collect();
                Some(ids.join(","))
            }
            Self::Unknown => None,
        }
    }

    fn of_policy(self, policy: LayoutPolicy) -> Option<String> {
        match self {
            Self::StripeSize => Some(policy.stripe_size.to_string()),
            Self::Base => Some(
                policy
                    .base
                    .map_or_else(|| BASE_IN_TURN.to_owned(), |base| base.to_string()),
            ),
            Self::Pcount => Some(policy.pcount.to_string()),
            Self::Iods | Self::Unknown => None,
        }
    }

    fn change(self, policy: &mut LayoutPolicy, value: &[u8]) -> Result<(), FsError> {
        let text = std::str::from_utf8(value)
            .map_err(|_| FsError::InvalidArgument)?
            .trim();
        let number = || text.parse::<u32>().map_err(|_| FsError::InvalidArgument);
        match self {
            Self::StripeSize => policy.stripe_size = number()?,
            Self::Base if text == BASE_IN_TURN => policy.base = None,
            Self::Base => policy.base = Some(number()?),
            Self::Pcount => policy.pcount = number()?,
            Self::Iods => return Err(FsError::NotPermitted),
            Self::Unknown => return Err(FsError::NotSupported),
        }
        Ok(())
    }
}

impl Transaction<'_> {
    /// The attribute's value.
    ///
    /// # Errors
    ///
    /// [`FsError::NoAttribute`] where the inode has none such.
    pub fn show_layout(&self, inode: &Inode, name: LayoutXattr) -> Result<Vec<u8>, Halt> {
        let text = if inode.directory.is_some() {
            name.of_policy(self.policy_of(inode)?)
        } else {
            let layout = self.get::<Layout>(&key::layout(inode.attr.inode))?;
            layout.and_then(|layout| name.of_layout(&layout))
        };
        Ok(text.ok_or(FsError::NoAttribute)?.into_bytes())
    }

    /// Changes one part of a policy, keeping the others.
    ///
    /// # Errors
    ///
    /// [`FsError::InvalidArgument`], and those of [`Self::set_layout`].
    pub fn set_layout_by_xattr(
        &mut self,
        inode: &Inode,
        name: LayoutXattr,
        value: &[u8],
    ) -> Result<MgrResponse, Halt> {
        let number = inode.attr.inode;
        let mut policy = if inode.directory.is_some() {
            self.policy_of(inode)?
        } else {
            let layout = self.get::<Layout>(&key::layout(number))?;
            let layout = layout.ok_or(FsError::NotSupported)?;
            LayoutPolicy {
                stripe_size: layout.stripe_size(),
                pcount: u32::try_from(layout.iods().len()).unwrap_or_default(),
                base: Some(layout.base()),
            }
        };
        name.change(&mut policy, value)?;
        self.set_layout(number, Some(policy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_parsed_strictly() {
        let mut policy = LayoutPolicy::default();
        let mut set = |name: LayoutXattr, value: &str| name.change(&mut policy, value.as_bytes());
        assert_eq!(set(LayoutXattr::StripeSize, "65536\n"), Ok(()));
        assert_eq!(set(LayoutXattr::Base, "2"), Ok(()));
        assert_eq!(
            set(LayoutXattr::Pcount, "-1"),
            Err(FsError::InvalidArgument)
        );
        assert_eq!(set(LayoutXattr::Pcount, "x"), Err(FsError::InvalidArgument));
        assert_eq!(set(LayoutXattr::Iods, "1,2"), Err(FsError::NotPermitted));
        assert_eq!(policy.stripe_size, 65_536);
        assert_eq!(policy.base, Some(2));
        assert_eq!(LayoutXattr::Base.of_policy(policy).as_deref(), Some("2"));
        LayoutXattr::Base.change(&mut policy, b"auto").unwrap();
        assert_eq!(LayoutXattr::Base.of_policy(policy).as_deref(), Some("auto"));
    }

    #[test]
    fn the_prefix_is_reserved() {
        assert_eq!(
            LayoutXattr::parse(b"user.pvfs.iods"),
            Some(LayoutXattr::Iods)
        );
        assert_eq!(
            LayoutXattr::parse(b"user.pvfs.x"),
            Some(LayoutXattr::Unknown)
        );
        assert_eq!(LayoutXattr::parse(b"user.x"), None);
    }
}
