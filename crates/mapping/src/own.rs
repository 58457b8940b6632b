//! What this process has mapped already, from `/proc/self/maps`.

use std::io::{BufRead as _, BufReader};
use std::os::fd::BorrowedFd;

/// One line of `/proc/self/maps` (proc(5)).
#[derive(Clone, Copy)]
struct Region {
    start: usize,
    end: usize,
    offset: u64,
}

/// Address of a shared, writable mapping of the file behind `fd`, from its start on and at least `len` bytes long.
pub(crate) fn find(fd: BorrowedFd<'_>, len: usize) -> Option<usize> {
    let inode = rustix::fs::fstat(fd).ok()?.st_ino;
    let maps = BufReader::new(std::fs::File::open("/proc/self/maps").ok()?);
    let mut run: Option<Region> = None;
    for region in maps.lines().filter_map(|line| parse(&line.ok()?, inode)) {
        // The kernel splits a mapping where its pages are treated differently; the pieces follow one another.
        let next = run.filter(|run| {
            run.end == region.start && run.offset + (run.end - run.start) as u64 == region.offset
        });
        let joined = next.map_or(region, |run| Region { end: region.end, ..run });
        if joined.offset == 0 && joined.end - joined.start >= len {
            return Some(joined.start);
        }
        run = Some(joined);
    }
    None
}

/// The region a line tells of, if it is a shared, writable mapping of a memfd with this inode.
fn parse(line: &str, inode: u64) -> Option<Region> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let rights = fields.next()?;
    let offset = fields.next()?;
    let found = fields.nth(1)?.parse() == Ok(inode)
        && rights == "rw-s"
        && fields.next().is_some_and(|name| name.starts_with("/memfd:"));
    let hex = |digits| usize::from_str_radix(digits, 16).ok();
    let region = Region { start: hex(start)?, end: hex(end)?, offset: u64::from_str_radix(offset, 16).ok()? };
    found.then_some(region)
}
