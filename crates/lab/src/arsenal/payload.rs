//! Which payloads there are, from which source, and what they can be told.

/// A payload of the arsenal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A genuine live patch. Not an attack.
    Benign,
    /// Writes to text with CR0.WP cleared for a moment.
    TextPatch,
    /// Points LSTAR elsewhere, in the register and where Xen loads it from.
    Lstar,
    /// Points LSTAR elsewhere in the register alone, which under AMD does not last.
    LstarMsr,
    /// As [`Payload::Lstar`], and answers a hypercall by itself, which Xen so never sees.
    Bypass,
    /// Swaps a gate of the interrupt descriptor tables.
    Idt,
    /// Makes a page of text writable.
    Pte,
    /// Makes a page of data executable.
    PteExec,
    /// Leaves CR0.WP cleared.
    Cr0Wp,
    /// Takes a domain out of the list of domains.
    HideDomain,
    /// Changes a function pointer in a read-only table.
    FnPointer,
    /// Changes a function pointer in a variable.
    IdlePointer,
    /// Changes text for a moment, again and again; nothing executes it meanwhile.
    Flicker,
    /// As [`Payload::Flicker`], and executes the text while it is changed.
    FlickerRun,
    /// Redirects where CPUs go on when a guest leaves.
    ExitPath,
    /// Writes to text through a second mapping.
    Alias,
    /// Has other memory used as text, which itself stays as it is.
    Remap,
    /// Puts code into the rest of the page that SYSCALL enters by.
    StubCode,
    /// Looks for whoever watches. Changes nothing.
    Detector,
    /// Runs a guest of its own.
    RogueVmrun,
}

/// First argument of the `sched_op` that [`Payload::Bypass`] answers: a mark of the lab's, with the number 9.
pub const ANSWERED: u32 = 0x4859_0009;

/// What payloads can be told when they are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long `flicker` and `flicker_run` leave the text changed, in microseconds.
    pub flicker_us: u32,
    /// How often they do so.
    pub flicker_times: u32,
    /// How long they wait after each time, in microseconds.
    pub flicker_gap_us: u32,
    /// The domain that `hide_domain` hides; if none, the domU with the lowest number.
    pub hidden_domain: Option<u16>,
    /// The gate that `idt` swaps. One through which no stack is switched (not 2, 8 or 18).
    pub vector: u8,
}

impl Default for Options {
    fn default() -> Self {
        Self { flicker_us: 1000, flicker_times: 10, flicker_gap_us: 10_000, hidden_domain: None, vector: 3 }
    }
}

impl Payload {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Benign,
        Self::TextPatch,
        Self::Lstar,
        Self::LstarMsr,
        Self::Bypass,
        Self::Idt,
        Self::Pte,
        Self::PteExec,
        Self::Cr0Wp,
        Self::HideDomain,
        Self::FnPointer,
        Self::IdlePointer,
        Self::Flicker,
        Self::FlickerRun,
        Self::ExitPath,
        Self::Alias,
        Self::Remap,
        Self::StubCode,
        Self::Detector,
        Self::RogueVmrun,
    ];

    /// Its name, under which Xen lists it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Benign => "benign",
            Self::TextPatch => "text_patch",
            Self::Lstar => "lstar",
            Self::LstarMsr => "lstar_msr",
            Self::Bypass => "bypass",
            Self::Idt => "idt",
            Self::Pte => "pte",
            Self::PteExec => "pte_exec",
            Self::Cr0Wp => "cr0_wp",
            Self::HideDomain => "hide_domain",
            Self::FnPointer => "fn_pointer",
            Self::IdlePointer => "idle_pointer",
            Self::Flicker => "flicker",
            Self::FlickerRun => "flicker_run",
            Self::ExitPath => "exit_path",
            Self::Alias => "alias",
            Self::Remap => "remap",
            Self::StubCode => "stub_code",
            Self::Detector => "detector",
            Self::RogueVmrun => "rogue_vmrun",
        }
    }

    /// Whether it tampers with Xen. What does not should not be reported as if it did.
    pub fn is_attack(self) -> bool {
        !matches!(self, Self::Benign | Self::Detector)
    }

    /// Its source: the file's name and text.
    pub(super) fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Benign => ("benign.c", include_str!("../../arsenal/benign.c")),
            Self::TextPatch => ("text_patch.c", include_str!("../../arsenal/text_patch.c")),
            Self::Lstar | Self::LstarMsr | Self::Bypass => ("lstar.c", include_str!("../../arsenal/lstar.c")),
            Self::Idt => ("idt.c", include_str!("../../arsenal/idt.c")),
            Self::Pte | Self::PteExec => ("pte.c", include_str!("../../arsenal/pte.c")),
            Self::Cr0Wp => ("cr0_wp.c", include_str!("../../arsenal/cr0_wp.c")),
            Self::HideDomain => ("hide_domain.c", include_str!("../../arsenal/hide_domain.c")),
            Self::FnPointer | Self::IdlePointer => {
                ("fn_pointer.c", include_str!("../../arsenal/fn_pointer.c"))
            }
            Self::Flicker | Self::FlickerRun => ("flicker.c", include_str!("../../arsenal/flicker.c")),
            Self::ExitPath => ("exit_path.c", include_str!("../../arsenal/exit_path.c")),
            Self::Alias => ("alias.c", include_str!("../../arsenal/alias.c")),
            Self::Remap => ("remap.c", include_str!("../../arsenal/remap.c")),
            Self::StubCode => ("stub_code.c", include_str!("../../arsenal/stub_code.c")),
            Self::Detector => ("detector.c", include_str!("../../arsenal/detector.c")),
            Self::RogueVmrun => ("rogue_vmrun.c", include_str!("../../arsenal/rogue_vmrun.c")),
        }
    }

    /// What the compiler defines for it.
    pub(super) fn definitions(self, options: &Options) -> Vec<(&'static str, u32)> {
        match self {
            Self::LstarMsr => vec![("MSR_ONLY", 1)],
            Self::Bypass => vec![("ANSWERED", ANSWERED)],
            Self::PteExec => vec![("PTE_EXECUTABLE", 1)],
            Self::IdlePointer => vec![("IDLE_POINTER", 1)],
            Self::Idt => vec![("VECTOR", options.vector.into())],
            Self::HideDomain => vec![("HIDE_DOMID", options.hidden_domain.unwrap_or(0).into())],
            Self::Flicker | Self::FlickerRun => vec![
                ("FLICKER_US", options.flicker_us),
                ("FLICKER_TIMES", options.flicker_times),
                ("FLICKER_GAP_US", options.flicker_gap_us),
                ("FLICKER_EXECUTE", (self == Self::FlickerRun).into()),
            ],
            _ => Vec::new(),
        }
    }
}
