//! Sizes as QEMU's command line writes them.

/// QEMU's `-m` takes mebibytes unless a suffix says otherwise.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text.get(digits.len()..)?.to_ascii_uppercase().as_str() {
        "" | "M" | "MB" | "MIB" => 1 << 20,
        "B" => 1,
        "K" | "KB" | "KIB" => 1 << 10,
        "G" | "GB" | "GIB" => 1 << 30,
        "T" | "TB" | "TIB" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// The most vCPUs that a value of `-smp` allows: `maxcpus`, else their number, else the product of the topology.
pub(super) fn max_vcpus(value: &str) -> Option<u32> {
    let (mut number, mut most, mut product) = (None, None, 1_u32);
    for (index, part) in value.split(',').enumerate() {
        match part.split_once('=') {
            None if index == 0 => number = Some(part.parse().ok()?),
            Some(("cpus", text)) => number = Some(text.parse().ok()?),
            Some(("maxcpus", text)) => most = Some(text.parse().ok()?),
            Some((_, text)) => product = product.checked_mul(text.parse().ok()?)?,
            None => return None,
        }
    }
    most.or(number).or(Some(product)).filter(|vcpus: &u32| *vcpus > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_counted_as_qemu_does() {
        assert_eq!(max_vcpus("4"), Some(4));
        assert_eq!(max_vcpus("2,maxcpus=8,sockets=8"), Some(8));
        assert_eq!(max_vcpus("cpus=3"), Some(3));
        assert_eq!(max_vcpus("sockets=2,cores=2,threads=2"), Some(8));
        assert_eq!([max_vcpus("many"), max_vcpus("0"), max_vcpus("4,5")], [None; 3]);
    }
}
