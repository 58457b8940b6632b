//! Who is compared with whom.

use serde::{Deserialize, Serialize};

use crate::domains::DomainKind;

/// The domain that Xen starts first, which controls the others. With a hardware domain of its own, or with domains
/// that Xen itself starts, others may be privileged as well; that is not seen.
const CONTROL_DOMAIN: u16 = 0;

/// Domains that are expected to behave alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallerKind {
    /// The control domain, whatever its kind.
    Privileged,
    /// Paravirtualised.
    Pv,
    /// Hardware virtualised, without a device model.
    Pvh,
    /// Hardware virtualised.
    Hvm,
    /// Not known.
    Unknown,
}

impl CallerKind {
    /// All.
    pub const ALL: [Self; 5] = [Self::Privileged, Self::Pv, Self::Pvh, Self::Hvm, Self::Unknown];

    /// Of a domain of this kind.
    #[must_use]
    pub const fn of(domain: u16, kind: DomainKind) -> Self {
        match kind {
            _ if domain == CONTROL_DOMAIN => Self::Privileged,
            DomainKind::Pv => Self::Pv,
            DomainKind::Pvh => Self::Pvh,
            DomainKind::Hvm => Self::Hvm,
            DomainKind::Unknown => Self::Unknown,
        }
    }

    /// Its name in profiles and policies.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Pv => "pv",
            Self::Pvh => "pvh",
            Self::Hvm => "hvm",
            Self::Unknown => "unknown",
        }
    }
}
