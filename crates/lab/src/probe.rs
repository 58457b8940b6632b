//! Does KVM really run a guest here? That `/dev/kvm` can be opened says little: on some virtual machines it is there and
//! cannot run an ordinary guest.
//!
//! The guest is a few bytes of firmware that ask the processor what it can do and end QEMU with the answer.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long the guest may take. On an emulated processor QEMU alone takes seconds to start.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Where QEMU's `isa-debug-exit` listens. A byte N that is written there ends QEMU with exit code 2 N + 1.
const EXIT_PORT: u8 = 0xf4;
/// What the guest writes: this, and bit 0 for SVM, bit 1 for VMX.
const ALIVE: i32 = 0x10;
/// The firmware's size; it ends at the top of the first megabyte's mirror below 4 GiB, where the processor starts.
const FIRMWARE_BYTES: usize = 64 * 1024;
/// Where in it the first instruction stands: 16 bytes before its end.
const RESET_VECTOR: usize = FIRMWARE_BYTES - 16;

/// 16-bit code at the firmware's start, reached from the reset vector.
const PROGRAM: [u8; 40] = [
    0x66,
    0xb8,
    0x01,
    0x00,
    0x00,
    0x80, // mov eax, 0x80000001
    0x0f,
    0xa2, // cpuid
    0x66,
    0x89,
    0xce, // mov esi, ecx
    0x66,
    0xc1,
    0xee,
    0x02, // shr esi, 2: bit 2 is SVM (AMD APM vol. 3, appendix E)
    0x83,
    0xe6,
    0x01, // and si, 1
    0x66,
    0xb8,
    0x01,
    0x00,
    0x00,
    0x00, // mov eax, 1
    0x0f,
    0xa2, // cpuid
    0xc1,
    0xe9,
    0x04, // shr cx, 4: bit 5 is VMX (Intel SDM vol. 2A, CPUID)
    0x83,
    0xe1,
    0x02, // and cx, 2
    0x09,
    0xf1, // or cx, si
    0x89,
    0xc8, // mov ax, cx
    0x0c,
    ALIVE as u8, // or al, ALIVE
    0xe6,
    EXIT_PORT, // out EXIT_PORT, al
];

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmProbe {
    /// A guest ran.
    Runs {
        /// And its processor could run guests in turn.
        nested: bool,
    },
    /// None ran; what QEMU said.
    Fails(String),
}

/// Runs the guest under KVM. `qemu` is a command that starts QEMU, as far as its program and data files go.
///
/// # Errors
/// When QEMU cannot be started or the firmware not be written.
pub fn probe_kvm(mut qemu: Command) -> std::io::Result<KvmProbe> {
    let mut firmware = tempfile::NamedTempFile::new()?;
    firmware.write_all(&image())?;
    qemu.args(["-no-user-config", "-nodefaults", "-display", "none", "-m", "16"]);
    qemu.args(["-machine", "pc", "-accel", "kvm", "-cpu", "host"]);
    qemu.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1")]);
    qemu.arg("-bios").arg(firmware.path());
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > TIMEOUT {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(KvmProbe::Fails("the guest did not run to its end".into()));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let answer = status.code().map(|code| code >> 1).filter(|answer| answer & !3 == ALIVE);
    if let Some(answer) = answer {
        return Ok(KvmProbe::Runs { nested: answer & 3 != 0 });
    }
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        std::io::Read::read_to_string(&mut stderr, &mut said)?;
    }
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    Ok(KvmProbe::Fails(
        last.map_or_else(|| format!("QEMU ended with {status}"), |line| line.trim().to_owned()),
    ))
}

fn image() -> Vec<u8> {
    let mut image = vec![0xf4; FIRMWARE_BYTES];
    image[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    // A near jump back to the start: the code segment's base is that of the last 64 KiB.
    let jump = (0_u16).wrapping_sub(RESET_VECTOR as u16 + 3).to_le_bytes();
    image[RESET_VECTOR..RESET_VECTOR + 3].copy_from_slice(&[0xe9, jump[0], jump[1]]);
    image
}
