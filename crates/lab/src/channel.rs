//! One channel from the machine: a Unix socket that waits for QEMU to connect, and is then read until QEMU closes it.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A channel's state.
enum State {
    Waiting(UnixListener),
    Open(UnixStream),
    Closed,
}

/// A channel, none of whose operations blocks.
pub(crate) struct Channel {
    state: State,
}

impl Channel {
    /// Begins to listen at this path.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { state: State::Waiting(listener) })
    }

    /// What to poll for being readable; nothing once it is closed.
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.state {
            State::Waiting(listener) => Some(listener.as_fd()),
            State::Open(stream) => Some(stream.as_fd()),
            State::Closed => None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Takes QEMU's connection if it has come.
    pub(crate) fn accept(&mut self) -> io::Result<()> {
        let State::Waiting(listener) = &self.state else { return Ok(()) };
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                self.state = State::Open(stream);
                Ok(())
            }
            Err(error) if is_transient(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads what is there into `buffer`, returning how much; none when there is nothing, or when QEMU has closed it.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let State::Open(stream) = &mut self.state else { return 0 };
        match stream.read(buffer) {
            Ok(length) if length > 0 => length,
            Err(error) if is_transient(&error) => 0,
            Ok(_) | Err(_) => {
                self.state = State::Closed;
                0
            }
        }
    }

    /// Sends a few bytes. That they fit is taken for granted; if QEMU has gone, reading will tell.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let State::Open(stream) = &mut self.state {
            let _ = stream.write_all(bytes);
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_waits_opens_and_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut channel = Channel::listen(&path).unwrap();
        let mut buffer = [0; 16];
        channel.accept().unwrap();
        assert!(!channel.is_open());
        let mut peer = UnixStream::connect(&path).unwrap();
        channel.accept().unwrap();
        assert!(channel.is_open());
        assert_eq!(channel.read(&mut buffer), 0);
        peer.write_all(b"text").unwrap();
        assert_eq!(channel.read(&mut buffer), 4);
        drop(peer);
        assert_eq!(channel.read(&mut buffer), 0);
        assert!(channel.is_closed());
    }
}
