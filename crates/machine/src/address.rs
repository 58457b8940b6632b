//! Newtypes for addresses, so that a virtual one is never used as a physical one.

use std::fmt;

/// Bytes in the smallest x86 page.
pub const PAGE_SIZE: u64 = 4096;

/// Where the upper, kernel half of the address space begins with four levels of page tables (AMD APM vol. 2, §5.3.1).
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The first address of the page this one lies in.
            #[must_use]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_SIZE - 1))
            }

            /// Bytes from the start of the page.
            #[must_use]
            pub const fn page_offset(self) -> u64 {
                self.0 & (PAGE_SIZE - 1)
            }

            /// The address `bytes` further on; wraps as the processor's address arithmetic does.
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A guest-physical address of L1: what L1 believes to be machine memory.
    Gpa
}

address! {
    /// A virtual address in the page tables that are current on an L1 vCPU.
    Gva
}

impl Gva {
    /// Whether bits 63..47 are all equal, as four-level paging demands (AMD APM vol. 2, §5.3.1).
    #[must_use]
    pub const fn is_canonical(self) -> bool {
        let sign_extended = ((self.0 << 16) as i64 >> 16) as u64;
        sign_extended == self.0
    }
}
