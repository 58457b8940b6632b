//! Why a session cannot begin or go on.

use std::path::PathBuf;

use hypovisor_event::control::{ControlError, PROTOCOL};
use hypovisor_l1::{DiscoverError, ImageError, ProfileError};
use hypovisor_mapping::MappingError;

use crate::qmp::QmpError;

/// Why a session cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The sensor cannot be reached.
    #[error("cannot reach the sensor at {path}: {source}")]
    Connect {
        /// The control socket.
        path: PathBuf,
        /// Why.
        source: rustix::io::Errno,
    },
    /// The conversation failed.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Sensor and engine are of different versions.
    #[error(
        "the sensor in QEMU speaks protocol {sensor}, this engine {PROTOCOL}: use the same hypovisor for both"
    )]
    Protocol {
        /// The sensor's.
        sensor: u64,
    },
    /// The first message was not the sensor's greeting.
    #[error("what listens at the control socket is not a sensor")]
    NotASensor,
    /// Shared memory cannot be mapped.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// L1's RAM is not backed by something that can be shared.
    #[error(
        "QEMU's RAM ({bytes} bytes, backend {backend}) is not shared; leave memory-backend out, or use \
         memory-backend-memfd with share=on"
    )]
    RamNotShared {
        /// QEMU's backend.
        backend: String,
        /// Its size.
        bytes: u64,
    },
    /// The file with L1's symbols cannot be read.
    #[error("cannot read symbol file {path}: {source}")]
    Symbols {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What runs in the kernel half is not a hypervisor that can be watched.
    #[error("the guest is not a Xen hypervisor: {0}")]
    Image(#[from] ImageError),
    /// As before, or the symbols are not its own.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// Xen's structures are not where they were expected.
    #[error("cannot make out this Xen's structures: {0}")]
    Layout(#[from] DiscoverError),
    /// QEMU's monitor.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// L1 is to be stopped or let go, and nobody said where QEMU's monitor is.
    #[error("L1 cannot be stopped or let go without QEMU's monitor")]
    NoMonitor,
    /// L1 was reset and has started something else.
    #[error("after a reset another Xen has started ({now}, not {before}): run hypovisor anew to watch it")]
    AnotherXen {
        /// The version watched so far.
        before: String,
        /// The version that has started.
        now: String,
    },
    /// Where the inner calls of a multicall stand is not known.
    #[error("cannot make out where this Xen keeps the inner calls of a multicall")]
    Multicall,
}

impl SessionError {
    /// Whether no Xen was found where L1 was looked at.
    pub(super) const fn is_no_xen(&self) -> bool {
        matches!(self, Self::Image(_) | Self::Profile(ProfileError::NotXen { .. }))
    }
}

/// Why a step failed: the session, or the sink that calls go to.
#[derive(Debug, thiserror::Error)]
pub enum StepError<E> {
    /// The session.
    #[error(transparent)]
    Session(SessionError),
    /// The sink.
    #[error(transparent)]
    Sink(E),
}
