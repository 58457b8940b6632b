//! Tables as Xen's build writes them, damaged ones, and images made to be slow.

use super::*;
use proptest::prelude::*;

/// Writes a table as Xen's build does: every token is one letter, or a made-up pair.
fn build(symbols: &[(u64, &str)], lead: usize, width: usize, padding: usize) -> Vec<u8> {
    let mut image = vec![0x90; lead];
    for (address, _) in symbols {
        image.extend_from_slice(&address.to_le_bytes()[..width]);
    }
    image.resize(image.len() + padding, 0);
    image.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    let mut names = Vec::new();
    let mut markers = Vec::new();
    for (number, (_, name)) in symbols.iter().enumerate() {
        if number % NAMES_PER_MARKER == 0 {
            markers.push(names.len() as u32);
        }
        names.push(name.len() as u8);
        names.extend_from_slice(name.as_bytes());
    }
    names.resize(names.len().next_multiple_of(4), 0);
    image.extend(names);
    image.extend(markers.iter().flat_map(|marker| marker.to_le_bytes()));
    image.resize(image.len() + padding, 0);
    image.extend(tokens());
    image
}

fn tokens() -> Vec<u8> {
    let mut table = Vec::new();
    let mut index = Vec::new();
    for token in 0..=255u8 {
        index.extend_from_slice(&(table.len() as u16).to_le_bytes());
        table.push(if token.is_ascii_graphic() { token } else { b'?' });
        table.push(0);
    }
    table.resize(table.len().next_multiple_of(4), 0);
    [table, index].concat()
}

fn many() -> Vec<(u64, String)> {
    (0..700)
        .map(|n| (0x20_0000 + 16 * n, format!("{}name_{n}", if n % 2 == 0 { 'T' } else { 'd' })))
        .collect()
}

fn borrowed(symbols: &[(u64, String)]) -> Vec<(u64, &str)> {
    symbols.iter().map(|(at, name)| (*at, name.as_str())).collect()
}

#[test]
fn a_table_is_found_wherever_it_stands() {
    let symbols = many();
    for (lead, padding) in [(0, 0), (64, 4), (6, 12)] {
        let image = build(&borrowed(&symbols), lead, 4, padding);
        let table = find(&image).unwrap();
        assert_eq!((table.len(), table.is_absolute()), (700, false));
        let named = table.symbols(Gva(0x1000_0000_0000));
        assert_eq!(named.address_of("name_2"), Some(Gva(0x1000_0020_0020)));
        assert_eq!(
            named.lookup(Gva(0x1000_0020_0021)).map(|(s, o)| (s.name.as_str(), o)),
            Some(("name_2", 1))
        );
    }
}

#[test]
fn whole_addresses_need_no_origin() {
    let symbols: Vec<(u64, String)> = many().into_iter().map(|(at, n)| (at | 0xffff_82d0 << 32, n)).collect();
    let table = find(&build(&borrowed(&symbols), 8, 8, 4)).unwrap();
    assert!(table.is_absolute());
    assert_eq!(table.symbols(Gva(7)).address_of("name_0"), Some(Gva(0xffff_82d0_0020_0000)));
}

#[test]
fn truncation_and_damage_never_panic() {
    let image = build(&borrowed(&many()), 16, 4, 4);
    for end in (0..image.len()).step_by(7) {
        assert_eq!(find(&image[..end]), None);
    }
    for at in (0..image.len()).step_by(11) {
        let mut damaged = image.clone();
        damaged[at] ^= 0xff;
        let _ = find(&damaged);
    }
}

/// Tokens that are all empty fit everywhere, and one marker wherever there are zeros: this took minutes.
#[test]
fn an_image_made_to_fit_everywhere_is_given_up() {
    let mut image = vec![0; 80 << 10];
    for _ in 0..MAX_CANDIDATES {
        image.extend((0..TOKENS as u16).flat_map(u16::to_le_bytes));
        image.resize(image.len() + 2048, 0);
    }
    let start = std::time::Instant::now();
    assert_eq!(find(&image), None);
    assert!(start.elapsed().as_secs() < 20, "it took {:?}", start.elapsed());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let _ = find(&bytes);
    }

    #[test]
    fn random_bytes_before_real_tokens_never_panic(bytes in proptest::collection::vec(0u8..4, 0..4096)) {
        let _ = find(&[bytes, tokens()].concat());
    }
}
