//! What the sensor did with a call, besides recording it.

/// A rule's outcome for a call, decided before L1 ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// The call never reached its handler; the guest got the rule's errno.
    Denied = 1,
    /// As [`Verdict::Denied`], if denying were switched on: the call ran.
    WouldDeny = 2,
    /// L1 was stopped before the call ran.
    Paused = 3,
}

impl Verdict {
    /// All, in the order of their numbers, which start at 1.
    pub const ALL: [Self; 3] = [Self::Denied, Self::WouldDeny, Self::Paused];

    /// The name in events and recordings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::WouldDeny => "would-deny",
            Self::Paused => "paused",
        }
    }

    /// The verdict of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    pub(crate) const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            1 => Some(Self::Denied),
            2 => Some(Self::WouldDeny),
            3 => Some(Self::Paused),
            _ => None,
        }
    }
}

/// How the sensor touched a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervention {
    /// The call is not the guest's: it was injected.
    pub injected: bool,
    /// What was decided.
    pub verdict: Option<Verdict>,
    /// Position of the rule that decided in the set that was in force; a recording does not keep it.
    pub rule: Option<u16>,
}
