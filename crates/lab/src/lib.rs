//! Fetches and boots real hypervisors for demos, tests and users' own experiments.
//!
//! A lab machine is Xen with a Linux dom0, run by QEMU without hardware virtualization. Everything it is made of comes
//! from the Debian archive, is unpacked (never installed) into a cache, and runs from there:
//!
//! ```text
//!     Lab::prepare                    bundle     what is fetched, as data
//!       fetch   apt-get, dpkg-deb     apt, fetch into <cache>/bundles/<name>/tree
//!       build   depmod, mke2fs        prepare    into <cache>/images/<xen>-<stamp>/
//!     Session::new                    machine    the machine and QEMU's arguments for it
//!       command()                     session    sockets, the work's disks, all in a temporary directory
//!       (the caller starts QEMU)
//!       drive(observer, deadline)     channel    console, script output, notices, exit code
//! ```
//!
//! The library does not start QEMU on its main path: the command line adds its plugin to the arguments first. Tests and
//! baselines that want a plain machine use [`spawn_unmonitored`].
//!
//! There is no network in the lab machine, no login and nothing kept from one session to the next, on purpose.

mod apt;
pub mod arsenal;
mod assets;
mod bundle;
mod cache;
mod channel;
mod command;
mod cpio;
mod dom0;
mod ext4;
mod fetch;
pub mod guests;
mod host;
mod initrd;
mod machine;
mod notice;
mod prepare;
mod probe;
mod progress;
mod session;
mod spawn;
mod stamp;
mod tree;
mod work;
mod workdir;
pub mod xentrace;

pub use bundle::{Bundle, QemuVersion, XenVersion};
pub use cache::{CacheError, Lab};
pub use command::{CommandError, QemuCommand};
pub use fetch::{FetchError, Manifest};
pub use host::KvmHost;
pub use machine::{Accelerator, EMULATED_VARIABLE, Machine};
pub use notice::{LabDomainId, Notice};
pub use prepare::{PrepareError, Prepared};
pub use probe::{KvmProbe, probe_kvm};
pub use progress::{Progress, Silent, Unit};
pub use session::{Observer, Outcome, Session, SessionError};
pub use spawn::{Unmonitored, spawn_unmonitored};
pub use tree::Tree;
pub use work::{DomuKind, Work};
