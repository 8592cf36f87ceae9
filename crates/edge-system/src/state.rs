//! Which of two slots runs: the choice and its transitions, which systems and packages share, and the record on the
//! disk that holds the choice of the system.

use crate::disk::Disk;
use crate::layout::Layout;
use crate::slot::Slot;
use edge_package::digest;
use std::fmt;
use std::io;

/// How a record begins.
const MAGIC: [u8; 8] = *b"\x89EDGEBS\n";
/// The version of the record that this build writes and reads.
const VERSION: u32 = 1;
/// Where the record's digest stands.
const SUM_AT: usize = 480;

/// Starts that a trial has, where nothing else is said.
pub const TRIES: u8 = 3;

/// Which slot runs, and what became of the last trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The slot that is kept.
    pub active: Slot,
    /// The other one, while it is on trial.
    pub trial: Option<Trial>,
    /// The slot that was refused last, until a trial begins.
    pub refused: Option<Refused>,
}

/// A slot that runs until its starts are used up, or until it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trial {
    /// The slot.
    pub slot: Slot,
    /// Starts left.
    pub tries_left: u8,
}

/// A slot that is no longer started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// The slot.
    pub slot: Slot,
    /// Why.
    pub reason: Reason,
}

/// Why a slot was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Its trial's starts were used up before it was kept.
    Tries,
    /// What is in it does not verify.
    Damaged,
    /// It ran, but failed before it was kept.
    Failed,
    /// The golden samples of the package in it do not pass here.
    Goldens,
    /// It is slower than allowed, or disagrees with what ran before.
    Behaviour,
}

/// What to start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// The slot.
    pub slot: Slot,
    /// Whether it is on trial.
    pub trial: bool,
}

impl Choice {
    /// Slot A, and nothing on trial.
    pub fn first() -> Choice {
        Choice { active: Slot::A, trial: None, refused: None }
    }

    /// What to start from, and the choice to make durable before that (the try counted, or a used-up trial ended).
    /// Where it equals `self` nothing need be written.
    pub fn boot(&self) -> (Boot, Choice) {
        match self.trial {
            None => (Boot { slot: self.active, trial: false }, *self),
            Some(Trial { tries_left: 0, .. }) => {
                (Boot { slot: self.active, trial: false }, self.give_up(Reason::Tries))
            }
            Some(Trial { slot, tries_left }) => {
                let trial = Some(Trial { slot, tries_left: tries_left - 1 });
                (Boot { slot, trial: true }, Choice { trial, ..*self })
            }
        }
    }

    /// Puts the slot that is not active on trial.
    pub fn begin_trial(&self, tries: u8) -> Choice {
        Choice { trial: Some(Trial { slot: self.active.other(), tries_left: tries }), refused: None, ..*self }
    }

    /// Gives the trial the try back that a start was counted as: an orderly end is no failed start.
    pub fn uncount(&self) -> Choice {
        let trial = self.trial.map(|t| Trial { tries_left: t.tries_left.saturating_add(1), ..t });
        Choice { trial, ..*self }
    }

    /// Makes the slot on trial the active one.
    pub fn keep(&self) -> Choice {
        match self.trial {
            Some(Trial { slot, .. }) => Choice { active: slot, trial: None, refused: None },
            None => *self,
        }
    }

    /// Ends the trial, and remembers why.
    pub fn give_up(&self, reason: Reason) -> Choice {
        match self.trial {
            Some(Trial { slot, .. }) => {
                Choice { active: self.active, trial: None, refused: Some(Refused { slot, reason }) }
            }
            None => *self,
        }
    }

    /// Makes `to` the active slot because the other one can't be started: what a start does when a slot is damaged.
    pub fn fall_back(&self, to: Slot, reason: Reason) -> Choice {
        Choice { active: to, trial: None, refused: Some(Refused { slot: to.other(), reason }) }
    }

    /// Whether the trial is of the other slot than the active one, as every transition leaves it.
    fn is_sound(&self) -> bool {
        self.trial.is_none_or(|t| t.slot != self.active)
    }

    /// The choice as lines of text: `a`, then perhaps `trial b 3` and `refused b tries`.
    pub fn to_text(&self) -> String {
        let mut text = format!("{}\n", self.active);
        if let Some(Trial { slot, tries_left }) = self.trial {
            text += &format!("trial {slot} {tries_left}\n");
        }
        if let Some(Refused { slot, reason }) = self.refused {
            text += &format!("refused {slot} {}\n", reason.name());
        }
        text
    }

    /// What the lines of text say; `None` where they are others than [`Choice::to_text`] writes.
    pub fn from_text(text: &str) -> Option<Choice> {
        let mut lines = text.trim_end().lines();
        let mut choice = Choice { active: Slot::from_name(lines.next()?)?, trial: None, refused: None };
        for line in lines {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["trial", slot, tries] if choice.trial.is_none() => {
                    choice.trial = Some(Trial { slot: Slot::from_name(slot)?, tries_left: tries.parse().ok()? });
                }
                ["refused", slot, reason] if choice.refused.is_none() => {
                    let reason = Reason::ALL.into_iter().find(|r| r.name() == reason)?;
                    choice.refused = Some(Refused { slot: Slot::from_name(slot)?, reason });
                }
                _ => return None,
            }
        }
        choice.is_sound().then_some(choice)
    }
}

impl Reason {
    /// All, in the order of their numbers in the record.
    const ALL: [Reason; 5] = [Reason::Tries, Reason::Damaged, Reason::Failed, Reason::Goldens, Reason::Behaviour];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Tries => "tries",
            Reason::Damaged => "damaged",
            Reason::Failed => "failed",
            Reason::Goldens => "goldens",
            Reason::Behaviour => "behaviour",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Tries => "its starts were used up before it was kept",
            Reason::Damaged => "it does not verify",
            Reason::Failed => "it failed before it was kept",
            Reason::Goldens => "its golden samples do not pass here",
            Reason::Behaviour => "it is slower than allowed or disagrees with what ran before",
        })
    }
}

/// The boot state: the system's choice, as it stands on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootState {
    /// Grows with every write; the copy with the higher one counts.
    pub generation: u64,
    /// Which system slot runs.
    pub choice: Choice,
}

/// What a copy of the boot state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateCopy {
    /// Whole.
    Good(BootState),
    /// Torn, rotten, or of another version.
    Damaged,
}

/// What the two copies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The state that counts; `None` where neither copy is good.
    pub state: Option<BootState>,
    /// The copies.
    pub copies: [StateCopy; 2],
}

impl BootState {
    /// The state of a fresh image.
    pub fn first() -> BootState {
        BootState { generation: 1, choice: Choice::first() }
    }

    /// The state that follows this one.
    pub fn next(&self, choice: Choice) -> BootState {
        BootState { generation: self.generation.saturating_add(1), choice }
    }

    /// The record of one copy.
    ///
    /// | offset | bytes | field, little-endian |
    /// |---|---|---|
    /// | 0 | 8 | magic `\x89EDGEBS\n` |
    /// | 8 | 4 | version, u32 = 1 |
    /// | 12 | 8 | generation, u64 |
    /// | 20 | 1 | active slot: 0 is A, 1 is B |
    /// | 21 | 3 | trial: 1 where there is one, its slot, tries left |
    /// | 24 | 3 | refused: 1 where there is one, its slot, the reason |
    /// | 27 | 453 | zero |
    /// | 480 | 32 | BLAKE3-256 of bytes 0 … 479 |
    pub fn encode(&self) -> [u8; 512] {
        let mut record = [0; 512];
        record[..8].copy_from_slice(&MAGIC);
        record[8..12].copy_from_slice(&VERSION.to_le_bytes());
        record[12..20].copy_from_slice(&self.generation.to_le_bytes());
        record[20] = self.choice.active as u8;
        if let Some(Trial { slot, tries_left }) = self.choice.trial {
            record[21..24].copy_from_slice(&[1, slot as u8, tries_left]);
        }
        if let Some(Refused { slot, reason }) = self.choice.refused {
            record[24..27].copy_from_slice(&[1, slot as u8, reason as u8]);
        }
        let sum = digest(&record[..SUM_AT]);
        record[SUM_AT..].copy_from_slice(&sum);
        record
    }

    /// Reads the record of one copy.
    pub fn decode(record: &[u8; 512]) -> StateCopy {
        let whole = digest(&record[..SUM_AT]) == record[SUM_AT..];
        let mut generation = [0; 8];
        generation.copy_from_slice(&record[12..20]);
        let slot = |byte: u8| Slot::BOTH.get(usize::from(byte)).copied();
        let fields = || {
            let trial = match record[21..24] {
                [0, 0, 0] => None,
                [1, which, tries_left] => Some(Trial { slot: slot(which)?, tries_left }),
                _ => return None,
            };
            let refused = match record[24..27] {
                [0, 0, 0] => None,
                [1, which, reason] => {
                    Some(Refused { slot: slot(which)?, reason: Reason::ALL.get(usize::from(reason)).copied()? })
                }
                _ => return None,
            };
            let choice = Choice { active: slot(record[20])?, trial, refused };
            let state = BootState { generation: u64::from_le_bytes(generation), choice };
            // What this version writes is all that it reads: magic, version and zero bytes included.
            (choice.is_sound() && state.encode() == *record).then_some(state)
        };
        match whole.then(fields).flatten() {
            Some(state) => StateCopy::Good(state),
            None => StateCopy::Damaged,
        }
    }

    /// Reads both copies.
    pub fn read(disk: &dyn Disk, layout: &Layout) -> io::Result<Found> {
        let mut copies = [StateCopy::Damaged; 2];
        let mut failure = None;
        for (copy, place) in copies.iter_mut().zip(&layout.state) {
            let mut record = [0; 512];
            // A copy that can't be read any more is what the other one is for.
            match disk.read_at(&mut record, place.start) {
                Ok(()) => *copy = BootState::decode(&record),
                Err(e) => failure = Some(e),
            }
        }
        let state = copies.iter().filter_map(StateCopy::good).max_by_key(|s| s.generation);
        match (state, failure) {
            (None, Some(e)) => Err(e),
            _ => Ok(Found { state, copies }),
        }
    }

    /// Writes both copies, one after the other, the worse one first, each flushed: at any moment one of them is good.
    pub fn write(&self, disk: &mut dyn Disk, layout: &Layout) -> io::Result<()> {
        let [first, second] = BootState::read(disk, layout)?.copies.map(|c| c.good().map(|s| s.generation));
        // A damaged copy is worse than any generation. The first one where both are equally good.
        let order = if second < first { [1, 0] } else { [0, 1] };
        let record = self.encode();
        for copy in order {
            disk.write_at(&record, layout.state[copy].start)?;
            disk.flush()?;
        }
        Ok(())
    }
}

impl StateCopy {
    /// The state, where the copy is whole.
    pub fn good(&self) -> Option<BootState> {
        match self {
            StateCopy::Good(state) => Some(*state),
            StateCopy::Damaged => None,
        }
    }
}

impl Found {
    /// Whether both copies say the same, as every finished write leaves them.
    pub fn is_whole(&self) -> bool {
        self.state.is_some() && self.copies[0] == self.copies[1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choices() -> impl Strategy<Value = Choice> {
        let slot = || prop::sample::select(&Slot::BOTH[..]);
        let trial = prop::option::of(any::<u8>());
        let refused = prop::option::of((slot(), prop::sample::select(&Reason::ALL[..])));
        (slot(), trial, refused).prop_map(|(active, trial, refused)| Choice {
            active,
            trial: trial.map(|tries_left| Trial { slot: active.other(), tries_left }),
            refused: refused.map(|(slot, reason)| Refused { slot, reason }),
        })
    }

    #[test]
    fn a_trial_has_its_tries_and_no_more() {
        let mut choice = Choice::first().begin_trial(TRIES);
        for _ in 0..TRIES {
            let (boot, next) = choice.boot();
            assert_eq!(boot, Boot { slot: Slot::B, trial: true });
            assert_eq!(next.keep(), Choice { active: Slot::B, trial: None, refused: None });
            choice = next;
        }
        assert_eq!(choice.uncount().boot().0, Boot { slot: Slot::B, trial: true });
        let (boot, next) = choice.boot();
        assert_eq!(boot, Boot { slot: Slot::A, trial: false });
        assert_eq!(next.refused, Some(Refused { slot: Slot::B, reason: Reason::Tries }));
        assert_eq!(next.boot(), (boot, next), "and then nothing is written any more");
    }

    #[test]
    fn without_a_trial_there_is_nothing_to_end() {
        let choice = Choice::first();
        assert_eq!([choice.keep(), choice.give_up(Reason::Failed), choice.uncount()], [choice; 3]);
        assert_eq!(choice.fall_back(Slot::B, Reason::Damaged).to_text(), "b\nrefused a damaged\n");
    }

    #[test]
    fn text_of_another_kind_is_no_choice() {
        for text in ["", "c", "a\ntrial a 3", "a\ntrial b 256", "a\ntrial b", "a\nx", "a\nrefused b x", "a/../b", "\0"]
        {
            assert_eq!(Choice::from_text(text), None, "{text:?}");
        }
        assert_eq!(Choice::from_text("b\n").unwrap(), Choice { active: Slot::B, ..Choice::first() });
        assert_eq!(Choice::from_text("a\ntrial b 3\n").unwrap(), Choice::first().begin_trial(3));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(choice in choices(), generation: u64) {
            prop_assert_eq!(Choice::from_text(&choice.to_text()), Some(choice));
            let state = BootState { generation, choice };
            prop_assert_eq!(BootState::decode(&state.encode()), StateCopy::Good(state));
        }

        #[test]
        fn any_changed_byte_damages_a_copy(choice in choices(), at in 0usize..512, flip in 1u8..) {
            let mut record = BootState { generation: 3, choice }.encode();
            record[at] ^= flip;
            prop_assert_eq!(BootState::decode(&record), StateCopy::Damaged);
        }

        /// Any fields under a sum that fits, as another version or an attacker writes them.
        #[test]
        fn any_record_is_read_or_damaged(fields in prop::collection::vec(any::<u8>(), 19), small: bool) {
            let mut record = BootState::first().encode();
            record[8..27].copy_from_slice(&fields);
            if small {
                record[8..12].copy_from_slice(&VERSION.to_le_bytes());
                record[20..27].iter_mut().for_each(|b| *b %= 3);
            }
            let sum = digest(&record[..SUM_AT]);
            record[SUM_AT..].copy_from_slice(&sum);
            if let StateCopy::Good(state) = BootState::decode(&record) {
                prop_assert_eq!(state.encode(), record);
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[ab]?\\PC{0,20}\n?(trial|refused)? ?[ab]? ?[a-z0-9]{0,6}\n?") {
            if let Some(choice) = Choice::from_text(&text) {
                prop_assert_eq!(Choice::from_text(&choice.to_text()), Some(choice));
            }
        }
    }
}
