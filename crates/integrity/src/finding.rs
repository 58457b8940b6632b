//! What a check found.

use hypovisor_machine::Gva;
use serde::Serialize;

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// The hypervisor's code.
    Text,
    /// Its constants.
    Constants,
    /// What it sets at boot and never again, such as the functions that hypercalls go through.
    Pointers,
    /// Which instructions may fault, and where they go on then.
    ExceptionTable,
    /// Its page tables.
    PageTables,
    /// The interrupt descriptor table of a processor.
    Idt,
    /// The global descriptor table of a processor.
    Gdt,
    /// The task state segment of a processor: on which stacks interrupts are handled.
    Tss,
    /// A control register or an MSR.
    Registers,
    /// The debug registers.
    DebugRegisters,
    /// Its own list of domains.
    Domains,
    /// A control block that VMRUN was given.
    Vmrun,
    /// Who calls the handlers of hypercalls.
    Hypercalls,
    /// That L1 is watched, and what is to be done about tampering.
    Watch,
}

impl Item {
    /// Its name in messages and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Constants => "constants",
            Self::Pointers => "pointers",
            Self::ExceptionTable => "exception_table",
            Self::PageTables => "page_tables",
            Self::Idt => "idt",
            Self::Gdt => "gdt",
            Self::Tss => "tss",
            Self::Registers => "registers",
            Self::DebugRegisters => "debug_registers",
            Self::Domains => "domains",
            Self::Vmrun => "vmrun",
            Self::Hypercalls => "hypercalls",
            Self::Watch => "watch",
        }
    }
}

/// What is to be thought of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "judgement")]
pub enum Judgement {
    /// Nothing that L1 does by itself explains it.
    Tampering,
    /// A live patch that L1 lists explains it.
    LivePatch {
        /// Its name.
        name: String,
    },
    /// It is not understood.
    Unknown {
        /// What would settle it.
        settle: String,
    },
}

/// One thing that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub item: Item,
    /// What is to be thought of it.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Where it begins, if it has a place in memory.
    #[serde(serialize_with = "address")]
    pub address: Option<Gva>,
    /// How many bytes differ; 0 if it is not about bytes.
    pub bytes: u64,
    /// The place by name, such as `do_console_io+0x10`, or the register's.
    pub place: String,
    /// One line that says what differs.
    pub message: String,
    /// Lines of disassembly, or values, as they ought to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expected: Vec<String>,
    /// As they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub found: Vec<String>,
}

impl Finding {
    /// A finding without lines.
    #[must_use]
    pub fn new(
        item: Item,
        judgement: Judgement,
        place: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            item,
            judgement,
            address: None,
            bytes: 0,
            place: place.into(),
            message: message.into(),
            expected: Vec::new(),
            found: Vec::new(),
        }
    }

    /// A finding that nothing L1 does explains.
    #[must_use]
    pub fn tampering(item: Item, place: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(item, Judgement::Tampering, place, message)
    }

    /// A finding that is not understood, and what would settle it.
    #[must_use]
    pub fn unknown(
        item: Item,
        place: impl Into<String>,
        message: impl Into<String>,
        settle: impl Into<String>,
    ) -> Self {
        Self::new(item, Judgement::Unknown { settle: settle.into() }, place, message)
    }

    /// With the bytes in memory that it is about.
    #[must_use]
    pub fn at(mut self, address: Gva, bytes: u64) -> Self {
        self.address = Some(address);
        self.bytes = bytes;
        self
    }

    /// With lines that tell what ought to be there and what is.
    #[must_use]
    pub fn compared(mut self, expected: Vec<String>, found: Vec<String>) -> Self {
        self.expected = expected;
        self.found = found;
        self
    }

    /// Whether it is taken for tampering.
    #[must_use]
    pub const fn is_tampering(&self) -> bool {
        matches!(self.judgement, Judgement::Tampering)
    }
}

/// Something that was looked at in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// What.
    pub item: Item,
    /// How much, and against what: one line.
    pub what: String,
}

/// All that one check saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What was looked at.
    pub verified: Vec<Verified>,
    /// What is not as expected.
    pub findings: Vec<Finding>,
    /// What could not be looked at, and why.
    pub skipped: Vec<Verified>,
}

impl Report {
    /// Notes that an item was looked at.
    pub(crate) fn verified(&mut self, item: Item, what: impl Into<String>) {
        self.verified.push(Verified { item, what: what.into() });
    }

    /// Notes that an item could not be looked at.
    pub(crate) fn skipped(&mut self, item: Item, why: impl Into<String>) {
        self.skipped.push(Verified { item, what: why.into() });
    }

    /// Adds findings.
    pub(crate) fn add(&mut self, findings: impl IntoIterator<Item = Finding>) {
        self.findings.extend(findings);
    }

    /// Whether anything is taken for tampering.
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        self.findings.iter().any(Finding::is_tampering)
    }
}

fn address<S: serde::Serializer>(address: &Option<Gva>, serializer: S) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(&format_args!("{:#x}", address.0)),
        None => serializer.serialize_none(),
    }
}
