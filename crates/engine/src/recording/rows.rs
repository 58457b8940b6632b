//! Reads the rows of one segment, a block at a time.

use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypovisor_abi::Width;
use hypovisor_abi::capture::Registers;
use hypovisor_abi::errno;
use hypovisor_event::record::{Caller, CallerMode};
use hypovisor_event::verdict::{Intervention, Verdict};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;

use super::batch::{MODES, OUTCOMES};
use super::column::{Malformed, Reader, Source};
use super::error::RecordingError;
use crate::call::{Call, CallId, Outcome};

/// Rows decoded at a time.
const BLOCK_ROWS: usize = 8192;

/// One call as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedCall {
    /// Its name in the session.
    pub id: CallId,
    /// When it entered, in nanoseconds since the Unix epoch.
    pub time_ns: i64,
    /// From entry to return, in nanoseconds; `None` if no return was seen.
    pub duration_ns: Option<u64>,
    /// Who made it.
    pub caller: Caller,
    /// The multicall that it is an inner call of.
    pub parent: Option<CallId>,
    /// The preempted call that it continues.
    pub continues: Option<CallId>,
    /// Number and arguments.
    pub registers: Registers,
    /// The hypercall's name, as the recording has it.
    pub hypercall: Arc<str>,
    /// The sub-op's number, if the call has sub-ops and it was read.
    pub sub_op_number: Option<u64>,
    /// The sub-op's name, unless its number was unknown.
    pub sub_op: Option<Arc<str>>,
    /// Guest memory copied at entry, in wire form.
    pub entry_memory: Vec<u8>,
    /// Guest memory copied after the call, in wire form.
    pub exit_memory: Vec<u8>,
    /// More memory belongs to the call than was copied.
    pub cut: bool,
    /// What the sensor did with it; without the rule.
    pub intervention: Intervention,
    /// How it ended.
    pub outcome: Outcome,
}

impl RecordedCall {
    /// The call as the engine has it while it watches.
    #[must_use]
    pub fn as_call(&self) -> Call<'_> {
        Call {
            id: self.id,
            time_ns: self.time_ns,
            duration_ns: self.duration_ns,
            caller: self.caller,
            parent: self.parent,
            continues: self.continues,
            registers: self.registers,
            entry_segments: &self.entry_memory,
            exit_segments: &self.exit_memory,
            cut: self.cut,
            intervention: self.intervention,
            outcome: self.outcome,
        }
    }

    /// The errno that it failed with, positive.
    #[must_use]
    pub fn errno(&self) -> Option<i64> {
        self.outcome.result().filter(|result| errno::is_error(*result)).map(|result| -result)
    }
}

/// The columns of one row group.
struct Columns {
    time: Reader<Int64Type>,
    pcpu: Reader<Int32Type>,
    sequence: Reader<Int64Type>,
    parent: Reader<Int64Type>,
    continues_pcpu: Reader<Int32Type>,
    continues_sequence: Reader<Int64Type>,
    domain: Reader<Int32Type>,
    vcpu: Reader<Int32Type>,
    mode: Reader<ByteArrayType>,
    cpl: Reader<Int32Type>,
    cs: Reader<Int32Type>,
    rip: Reader<Int64Type>,
    rsp: Reader<Int64Type>,
    number: Reader<Int64Type>,
    hypercall: Reader<ByteArrayType>,
    sub_op_number: Reader<Int64Type>,
    sub_op: Reader<ByteArrayType>,
    args: [Reader<Int64Type>; 6],
    outcome: Reader<ByteArrayType>,
    result: Reader<Int64Type>,
    duration_ns: Reader<Int64Type>,
    cut: Reader<BoolType>,
    injected: Option<Reader<BoolType>>,
    verdict: Option<Reader<ByteArrayType>>,
    entry_memory: Reader<ByteArrayType>,
    exit_memory: Reader<ByteArrayType>,
}

impl Columns {
    fn open(source: &Source<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            time: source.column("time")?,
            pcpu: source.column("pcpu")?,
            sequence: source.column("sequence")?,
            parent: source.column("parent")?,
            continues_pcpu: source.column("continues_pcpu")?,
            continues_sequence: source.column("continues_sequence")?,
            domain: source.column("domain")?,
            vcpu: source.column("vcpu")?,
            mode: source.column("mode")?,
            cpl: source.column("cpl")?,
            cs: source.column("cs")?,
            rip: source.column("rip")?,
            rsp: source.column("rsp")?,
            number: source.column("number")?,
            hypercall: source.column("hypercall")?,
            sub_op_number: source.column("sub_op_number")?,
            sub_op: source.column("sub_op")?,
            args: [
                source.column("arg1")?,
                source.column("arg2")?,
                source.column("arg3")?,
                source.column("arg4")?,
                source.column("arg5")?,
                source.column("arg6")?,
            ],
            outcome: source.column("outcome")?,
            result: source.column("result")?,
            duration_ns: source.column("duration_ns")?,
            cut: source.column("cut")?,
            injected: source.later_column("injected")?,
            verdict: source.later_column("verdict")?,
            entry_memory: source.column("entry_memory")?,
            exit_memory: source.column("exit_memory")?,
        })
    }

    fn fill(&mut self, rows: usize) -> Result<(), Malformed> {
        let longs = [
            &mut self.time,
            &mut self.sequence,
            &mut self.parent,
            &mut self.continues_sequence,
            &mut self.rip,
            &mut self.rsp,
            &mut self.number,
            &mut self.sub_op_number,
            &mut self.result,
            &mut self.duration_ns,
        ];
        longs.into_iter().chain(&mut self.args).try_for_each(|column| column.fill(rows))?;
        let ints = [
            &mut self.pcpu,
            &mut self.continues_pcpu,
            &mut self.domain,
            &mut self.vcpu,
            &mut self.cpl,
            &mut self.cs,
        ];
        ints.into_iter().try_for_each(|column| column.fill(rows))?;
        let bytes = [
            &mut self.mode,
            &mut self.hypercall,
            &mut self.sub_op,
            &mut self.outcome,
            &mut self.entry_memory,
            &mut self.exit_memory,
        ];
        bytes.into_iter().chain(&mut self.verdict).try_for_each(|column| column.fill(rows))?;
        self.cut.fill(rows)?;
        self.injected.as_mut().map_or(Ok(()), |column| column.fill(rows))
    }

    fn row(&mut self, names: &mut Interned) -> Result<RecordedCall, Malformed> {
        let pcpu = self.pcpu.required()? as u32;
        let caller = self.caller()?;
        Ok(RecordedCall {
            id: CallId { pcpu, sequence: self.sequence.required()? as u64 },
            time_ns: self.time.required()?,
            duration_ns: self.duration_ns.next().map(|duration| duration as u64),
            parent: self.parent.next().map(|sequence| CallId { pcpu, sequence: sequence as u64 }),
            continues: self.continues()?,
            registers: self.registers(caller.mode)?,
            caller,
            hypercall: names.get(&self.hypercall.required()?)?,
            sub_op_number: self.sub_op_number.next().map(|number| number as u64),
            sub_op: self.sub_op.next().map(|name| names.get(&name)).transpose()?,
            entry_memory: self.entry_memory.next().map_or_else(Vec::new, |bytes| bytes.data().to_vec()),
            exit_memory: self.exit_memory.next().map_or_else(Vec::new, |bytes| bytes.data().to_vec()),
            cut: self.cut.required()?,
            intervention: self.intervention()?,
            outcome: self.outcome()?,
        })
    }

    fn continues(&mut self) -> Result<Option<CallId>, Malformed> {
        match (self.continues_pcpu.next(), self.continues_sequence.next()) {
            (Some(pcpu), Some(sequence)) => Ok(Some(CallId { pcpu: pcpu as u32, sequence: sequence as u64 })),
            (None, None) => Ok(None),
            _ => Err("a continuation names half a call".into()),
        }
    }

    fn intervention(&mut self) -> Result<Intervention, Malformed> {
        let name = self.verdict.as_mut().and_then(Reader::next);
        let injected = self.injected.as_mut().map_or(Ok(false), Reader::required)?;
        let verdict = name.map(|name| {
            let known = name.as_utf8().ok().and_then(Verdict::from_name);
            known.ok_or_else(|| Malformed::from("a verdict is none that is known"))
        });
        Ok(Intervention { injected, verdict: verdict.transpose()?, rule: None })
    }

    fn caller(&mut self) -> Result<Caller, Malformed> {
        Ok(Caller {
            domain: self.domain.narrow("domain")?,
            vcpu: self.vcpu.narrow("vcpu")?,
            mode: mode(&self.mode.required()?)?,
            cpl: self.cpl.narrow("cpl")?,
            cs: self.cs.narrow("cs")?,
            rip: self.rip.required()? as u64,
            rsp: self.rsp.required()? as u64,
        })
    }

    fn registers(&mut self, mode: CallerMode) -> Result<Registers, Malformed> {
        let mut args = [0; 6];
        for (arg, column) in args.iter_mut().zip(&mut self.args) {
            *arg = column.required()? as u64;
        }
        let width = if mode.is_64_bit() { Width::Bits64 } else { Width::Bits32 };
        Ok(Registers { number: self.number.required()? as u64, args, width })
    }

    fn outcome(&mut self) -> Result<Outcome, Malformed> {
        let name = self.outcome.required()?;
        let result = self.result.next();
        match (OUTCOMES.iter().position(|known| known.as_bytes() == name.data()), result) {
            (Some(0), Some(result)) => Ok(Outcome::Returned(result)),
            (Some(1), None) => Ok(Outcome::Preempted),
            (Some(2), None) => Ok(Outcome::Unfinished),
            (Some(3), None) => Ok(Outcome::Resumed),
            (Some(_), _) => Err("an outcome does not match its result".into()),
            (None, _) => Err(format!("unknown outcome {name}").into()),
        }
    }
}

fn mode(name: &ByteArray) -> Result<CallerMode, Malformed> {
    const IN_ORDER: [CallerMode; 4] =
        [CallerMode::Pv64, CallerMode::Pv32, CallerMode::Hvm64, CallerMode::Hvm32];
    let position = MODES.iter().position(|known| known.as_bytes() == name.data());
    let mode = position.and_then(|index| IN_ORDER.get(index).copied());
    mode.ok_or_else(|| format!("unknown mode {name}").into())
}

/// Every distinct name once.
#[derive(Default)]
struct Interned(HashSet<Arc<str>>);

impl Interned {
    fn get(&mut self, name: &ByteArray) -> Result<Arc<str>, Malformed> {
        let name = name.as_utf8().map_err(|error| error.to_string())?;
        if let Some(known) = self.0.get(name) {
            return Ok(known.clone());
        }
        let new: Arc<str> = name.into();
        self.0.insert(new.clone());
        Ok(new)
    }
}

/// Reads one segment.
pub(super) struct SegmentReader {
    path: PathBuf,
    file: SerializedFileReader<File>,
    /// The row group to open next.
    next_group: usize,
    columns: Option<Columns>,
    /// Rows left in the open row group.
    rows_left: usize,
    names: Interned,
}

impl SegmentReader {
    pub(super) fn open(path: &Path) -> Result<Self, RecordingError> {
        let file = File::open(path).map_err(RecordingError::reading(path))?;
        Self::from_file(path, file)
    }

    /// As [`Self::open`], for a file that is open already; `path` is for messages.
    pub(super) fn from_file(path: &Path, file: File) -> Result<Self, RecordingError> {
        let file = guarded(|| SerializedFileReader::new(file).map_err(Malformed::from))
            .map_err(|what| RecordingError::segment(path, what.0))?;
        let names = Interned::default();
        Ok(Self { path: path.to_owned(), file, next_group: 0, columns: None, rows_left: 0, names })
    }

    /// Rows in the whole segment.
    pub(super) fn rows(&self) -> u64 {
        u64::try_from(self.file.metadata().file_metadata().num_rows()).unwrap_or(0)
    }

    /// The next rows; none at the end.
    pub(super) fn block(&mut self) -> Result<Vec<RecordedCall>, RecordingError> {
        guarded(|| self.block_unguarded()).map_err(|what| RecordingError::segment(&self.path, what.0))
    }

    fn block_unguarded(&mut self) -> Result<Vec<RecordedCall>, Malformed> {
        while self.rows_left == 0 {
            if self.next_group >= self.file.num_row_groups() {
                return Ok(Vec::new());
            }
            self.open_group()?;
        }
        let Some(columns) = &mut self.columns else { return Ok(Vec::new()) };
        let rows = self.rows_left.min(BLOCK_ROWS);
        columns.fill(rows)?;
        self.rows_left -= rows;
        (0..rows).map(|_| columns.row(&mut self.names)).collect()
    }

    fn open_group(&mut self) -> Result<(), Malformed> {
        let group = self.file.get_row_group(self.next_group)?;
        self.next_group += 1;
        self.rows_left = usize::try_from(group.metadata().num_rows()).map_err(|error| error.to_string())?;
        self.columns = Some(Columns::open(&Source(group.as_ref()))?);
        Ok(())
    }
}

/// Runs `read`; the `parquet` crate panics on some damaged files, and that becomes an error.
fn guarded<T>(read: impl FnOnce() -> Result<T, Malformed>) -> Result<T, Malformed> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err("it makes the parquet reader fail".into()))
}
