//! A stamp: a short fingerprint of everything an image is built from, so that a change to any of it builds it anew.

/// FNV-1a, 64 bits: no protection against malice, which a cache key does not need.
pub(crate) struct Stamp(u64);

impl Stamp {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Adds a part. Its length goes in too, so that moving a byte from one part to the next shows.
    pub(crate) fn add(&mut self, part: &[u8]) {
        let length = (part.len() as u64).to_le_bytes();
        for byte in length.iter().chain(part) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// The stamp as text for a file name.
    pub(crate) fn text(&self) -> String {
        format!("{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let text = |parts: &[&str]| {
            let mut stamp = Stamp::new();
            parts.iter().for_each(|part| stamp.add(part.as_bytes()));
            stamp.text()
        };
        assert_ne!(text(&["ab", "c"]), text(&["a", "bc"]));
        assert_eq!(text(&["ab", "c"]), text(&["ab", "c"]));
    }
}
