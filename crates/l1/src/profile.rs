//! The description of one running Xen: everything a sensor must know of it, as plain data.

use hypovisor_machine::{Gva, PhysicalMemory, VirtualMemory};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, Register};
use serde::{Deserialize, Serialize};

use crate::embedded::{self, EmbeddedTable};
use crate::{
    BuildId, CodeMap, DiscoverError, DwarfError, HookError, Hooks, Image, Layout, LayoutHints, Running,
    SymbolFile, SymbolFileError, SymbolTable, check_layout, discover_layout,
};

/// How many symbols of the embedded table a file must contradict to be of another build: a share of all, in percent.
const MAX_CONTRADICTIONS_PERCENT: usize = 1;
/// The longest version text taken from an image.
const MAX_VERSION_BYTES: usize = 64;

/// Where a profile's symbols come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SymbolSource {
    /// A symbols file that was checked against the image.
    File(String),
    /// The table in the image itself.
    Embedded,
}

/// Why no profile could be made.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The image has no symbol table of Xen's form, or one without Xen's functions, and no file names them.
    #[error("the code at {base:#x} is not a Xen hypervisor: {reason}")]
    NotXen {
        /// Where the image starts.
        base: Gva,
        /// What is missing.
        reason: &'static str,
    },
    /// The symbols file was not made together with the running image.
    #[error("symbol file {path} is of another build ({file}) than the running Xen ({running})")]
    WrongBuild {
        /// The file.
        path: String,
        /// What the file is: its build id, or how it contradicts the image.
        file: String,
        /// What is running.
        running: String,
    },
    /// The symbols file cannot be read.
    #[error("symbol file {path}: {error}")]
    SymbolFile {
        /// The file.
        path: String,
        /// Why not.
        error: SymbolFileError,
    },
    /// The symbols file's DWARF cannot be used.
    #[error("symbol file {path}: {error}")]
    Dwarf {
        /// The file.
        path: String,
        /// Why not.
        error: DwarfError,
    },
    /// The functions that hypercalls pass were not found.
    #[error(transparent)]
    Hooks(#[from] HookError),
}

/// One running Xen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The build id in the image.
    pub build_id: Option<BuildId>,
    /// The version as Xen prints it, such as `4.20.1`; `None` if the functions that tell it are not there.
    pub version: Option<String>,
    /// Where the symbols come from.
    pub symbols: SymbolSource,
    /// The image's first mapped address.
    #[serde(with = "crate::hex::gva")]
    pub image_base: Gva,
    /// The image's mapped size in bytes; boot page tables map a little more than the image.
    pub image_bytes: u64,
    /// Where to stop.
    pub hooks: Hooks,
    /// Structure offsets, when known without running; else see [`Profile::settle_layout`].
    pub layout: Option<Layout>,
    /// Offsets that the code gives away, the start of a discovery.
    pub hints: LayoutHints,
    /// The variable `hardware_domain`, which points at dom0's `struct domain`.
    #[serde(with = "crate::hex::gva_option")]
    pub hardware_domain: Option<Gva>,
}

impl Profile {
    /// Describes an image, with the symbols of a file (`path` for messages, contents) if there is one.
    ///
    /// Also returns the symbols used, for whoever wants to name addresses.
    ///
    /// # Errors
    /// When the image is not Xen, the file belongs to another build, or the functions to stop at are not found.
    pub fn build(image: &Image, file: Option<(&str, &[u8])>) -> Result<(Self, SymbolTable), ProfileError> {
        match file {
            Some((path, contents)) => Self::from_symbol_file(image, path, contents),
            None => Self::from_embedded(image),
        }
    }

    /// Whether the other is of the same Xen, which may have been started at another time.
    #[must_use]
    pub fn is_same_xen(&self, other: &Self) -> bool {
        let identity =
            |profile: &Self| (profile.build_id.clone(), profile.version.clone(), profile.image_base);
        identity(self) == identity(other) && self.hooks == other.hooks
    }

    fn from_symbol_file(
        image: &Image,
        path: &str,
        contents: &[u8],
    ) -> Result<(Self, SymbolTable), ProfileError> {
        let path = path.to_owned();
        let file = match SymbolFile::parse(contents) {
            Ok(file) => file,
            Err(error) => return Err(ProfileError::SymbolFile { path, error }),
        };
        let code = check_build(image, &path, &file)?;
        let layout = match file.layout() {
            Ok(layout) => layout,
            Err(error) => return Err(ProfileError::Dwarf { path, error }),
        };
        let symbols = file.symbols().clone();
        let profile = Self::assemble(image, &symbols, &code, SymbolSource::File(path), layout)?;
        Ok((profile, symbols))
    }

    fn from_embedded(image: &Image) -> Result<(Self, SymbolTable), ProfileError> {
        let not_xen = |reason| ProfileError::NotXen { base: image.base(), reason };
        let table = embedded::find(image.bytes()).ok_or(not_xen("it carries no symbol table"))?;
        let (symbols, code) =
            place(image, &table).ok_or(not_xen("its symbol table does not fit its code"))?;
        let profile = match Self::assemble(image, &symbols, &code, SymbolSource::Embedded, None) {
            Err(ProfileError::Hooks(HookError::NoEntry)) => Err(not_xen("its symbols lack Xen's functions")),
            other => other,
        }?;
        Ok((profile, symbols))
    }

    fn assemble(
        image: &Image,
        symbols: &SymbolTable,
        code: &CodeMap,
        source: SymbolSource,
        layout: Option<Layout>,
    ) -> Result<Self, ProfileError> {
        Ok(Self {
            build_id: BuildId::find(image.bytes()),
            version: version(image, symbols),
            symbols: source,
            image_base: image.base(),
            image_bytes: image.bytes().len() as u64,
            hooks: Hooks::find(image, symbols, code)?,
            layout,
            hints: LayoutHints::find(image, symbols, code),
            hardware_domain: symbols.address_of("hardware_domain"),
        })
    }

    /// Checks the layout, or finds it where there was none, at the first hypercall of dom0 with its virtual CPU
    /// stopped in the hook; tells who that is.
    ///
    /// # Errors
    /// As [`check_layout`] and [`discover_layout`].
    pub fn settle_layout<M: PhysicalMemory>(
        &mut self,
        memory: &VirtualMemory<M>,
        frame: Gva,
    ) -> Result<Running, DiscoverError> {
        if let Some(layout) = &self.layout {
            return check_layout(memory, frame, layout);
        }
        let layout = discover_layout(memory, frame, &self.hints, self.hardware_domain)?;
        check_layout(memory, frame, self.layout.insert(layout))
    }
}

/// The symbols at the addresses where the code's calls land on them, and the code map that proved it.
fn place(image: &Image, table: &EmbeddedTable) -> Option<(SymbolTable, CodeMap)> {
    // Xen counts from the start of its region; the rest is for images that count from their own start.
    let origins = [image.region(), image.base(), Gva(0)];
    origins.into_iter().find_map(|origin| {
        let symbols = table.symbols(origin);
        let code = CodeMap::build(image, &symbols);
        code.symbols_fit().then_some((symbols, code))
    })
}

/// Refuses a file of another build: by build id, by the embedded table, and by the code itself.
fn check_build(image: &Image, path: &str, file: &SymbolFile<'_>) -> Result<CodeMap, ProfileError> {
    let wrong = |file, running| ProfileError::WrongBuild { path: path.to_owned(), file, running };
    let running = BuildId::find(image.bytes());
    let name = |id: Option<&BuildId>| id.map_or_else(|| "no build id".to_owned(), BuildId::to_string);
    if let (Some(ours), Some(theirs)) = (&running, file.build_id())
        && ours != theirs
    {
        return Err(wrong(theirs.to_string(), ours.to_string()));
    }
    let code = CodeMap::build(image, file.symbols());
    if !code.symbols_fit() {
        let (hits, calls) = code.agreement();
        let found = format!("{}; {hits} of {calls} calls land on its functions", name(file.build_id()));
        return Err(wrong(found, name(running.as_ref())));
    }
    if let Some((common, contradictions)) = compare_embedded(image, file.symbols())
        && contradictions * 100 > common * MAX_CONTRADICTIONS_PERCENT
    {
        let found =
            format!("{}; {contradictions} of {common} symbols stand elsewhere", name(file.build_id()));
        return Err(wrong(found, name(running.as_ref())));
    }
    Ok(code)
}

/// How many global symbols the file shares with the embedded table, and how many of them it places elsewhere.
fn compare_embedded(image: &Image, file: &SymbolTable) -> Option<(usize, usize)> {
    let table = embedded::find(image.bytes())?;
    let embedded = table.symbols(image.region());
    let shared = embedded.symbols().iter().filter(|symbol| symbol.global);
    let pairs = shared.filter_map(|symbol| Some((symbol.address, file.address_of(&symbol.name)?)));
    let (mut common, mut contradictions) = (0, 0);
    for (ours, theirs) in pairs {
        common += 1;
        contradictions += usize::from(ours != theirs);
    }
    Some((common, contradictions))
}

/// The version as `xen_major_version()`, `xen_minor_version()` and `xen_extra_version()` return it: each is a load of
/// a constant into RAX.
fn version(image: &Image, symbols: &SymbolTable) -> Option<String> {
    let constant = |function| constant_function(image, symbols.address_of(function)?);
    let (major, minor) = (constant("xen_major_version")?, constant("xen_minor_version")?);
    let extra = constant("xen_extra_version").and_then(|at| text_at(image, Gva(at))).unwrap_or_default();
    (major < 100 && minor < 1000).then(|| format!("{major}.{minor}{extra}"))
}

fn constant_function(image: &Image, function: Gva) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, image.from(function)?, function.0, DecoderOptions::NONE);
    let instructions = std::iter::from_fn(|| Some(decoder.decode())).take(2);
    instructions
        .filter(|instruction| instruction.op0_register().full_register() == Register::RAX)
        .find_map(constant)
}

fn constant(instruction: Instruction) -> Option<u64> {
    match instruction.mnemonic() {
        Mnemonic::Mov => instruction.try_immediate(1).ok(),
        Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => Some(instruction.ip_rel_memory_address()),
        Mnemonic::Xor => Some(0),
        _ => None,
    }
}

fn text_at(image: &Image, at: Gva) -> Option<String> {
    let bytes: Vec<u8> =
        image.from(at)?.iter().copied().take(MAX_VERSION_BYTES).take_while(|b| *b != 0).collect();
    let text = String::from_utf8(bytes).ok()?;
    text.bytes().all(|byte| byte.is_ascii_graphic()).then_some(text)
}
