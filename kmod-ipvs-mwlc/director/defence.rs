// SPDX-License-Identifier: GPL-2.0-only OR MIT
//! What the director gives up when memory is short: `drop_entry` and `drop_packet` of IPVS.

/// A defence's mode, as its sysctl has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 0: never.
    Off,
    /// 1: when memory is short, which it is not.
    Waiting,
    /// 2: when memory is short, which it is.
    Acting,
    /// 3: always.
    Always,
}

impl Mode {
    /// The mode with this number; a number that no sysctl lets through is off.
    pub const fn from_number(number: i32) -> Mode {
        match number {
            1 => Mode::Waiting,
            2 => Mode::Acting,
            3 => Mode::Always,
            _ => Mode::Off,
        }
    }

    /// Its number.
    pub const fn number(self) -> i32 {
        match self {
            Mode::Off => 0,
            Mode::Waiting => 1,
            Mode::Acting => 2,
            Mode::Always => 3,
        }
    }

    /// The mode that follows, now that memory is short or is not. The automatic modes follow it, the
    /// others stay.
    #[must_use]
    pub const fn after(self, memory_is_short: bool) -> Mode {
        match self {
            Mode::Waiting | Mode::Acting if memory_is_short => Mode::Acting,
            Mode::Waiting | Mode::Acting => Mode::Waiting,
            Mode::Off | Mode::Always => self,
        }
    }

    /// Whether the defence is up.
    pub const fn is_up(self) -> bool {
        matches!(self, Mode::Acting | Mode::Always)
    }
}

/// Free memory and how much of it is enough, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Free, or in buffers.
    pub available_pages: u64,
    /// Enough: sysctl `amemthresh`.
    pub enough_pages: u64,
}

impl Memory {
    /// Whether there is too little.
    pub const fn is_short(&self) -> bool {
        self.available_pages < self.enough_pages
    }

    /// Of how many new flows `drop_packet` drops one; 0: of none. `always_rate` is sysctl
    /// `am_droprate`, for mode 3.
    pub const fn drop_rate(&self, mode: Mode, always_rate: u32) -> u32 {
        match mode {
            Mode::Off | Mode::Waiting => 0,
            Mode::Always => always_rate,
            Mode::Acting => {
                let missing = self.enough_pages.saturating_sub(self.available_pages);
                match self.enough_pages.checked_div(missing) {
                    // Below 2^32 as long as a page is missing of less than 16 TiB.
                    Some(rate) if rate <= u32::MAX as u64 => rate as u32,
                    Some(_) => u32::MAX,
                    None => 0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_follow_memory_only_if_they_are_automatic() {
        let table = [
            (Mode::Off, Mode::Off, Mode::Off),
            (Mode::Waiting, Mode::Acting, Mode::Waiting),
            (Mode::Acting, Mode::Acting, Mode::Waiting),
            (Mode::Always, Mode::Always, Mode::Always),
        ];
        for (number, (mode, short, enough)) in (0..).zip(table) {
            assert_eq!(Mode::from_number(number), mode);
            assert_eq!(mode.number(), number);
            assert_eq!((mode.after(true), mode.after(false)), (short, enough));
        }
        assert_eq!(Mode::from_number(-1), Mode::Off);
        let up = [Mode::Off, Mode::Waiting, Mode::Acting, Mode::Always].map(Mode::is_up);
        assert_eq!(up, [false, false, true, true]);
    }

    #[test]
    fn the_less_memory_the_more_is_dropped() {
        let with = |available_pages| Memory {
            available_pages,
            enough_pages: 1024,
        };
        for (available, short, rate) in [
            (2000, false, 0),
            (1024, false, 0),
            (1023, true, 1024),
            (512, true, 2),
            (0, true, 1),
        ] {
            let memory = with(available);
            assert_eq!(memory.is_short(), short, "{available}");
            let mode = Mode::Waiting.after(short);
            assert_eq!(memory.drop_rate(mode, 10), rate, "{available}");
            assert_eq!(memory.drop_rate(Mode::Always, 10), 10);
            assert_eq!(memory.drop_rate(Mode::Off, 10), 0);
        }
    }
}
