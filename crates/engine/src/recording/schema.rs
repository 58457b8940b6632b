//! The columns of a segment. Their names, types and order are the format; `docs/recording.md` explains them.

use std::sync::{Arc, LazyLock};

use parquet::errors::ParquetError;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor};

/// Format version of segments and manifest together.
pub(super) const VERSION: u32 = 1;
/// Name of the format, in the manifest and in every segment's metadata.
pub(super) const FORMAT: &str = "hypovisor-recording";
/// Number of columns.
pub(super) const COLUMNS: usize = 34;

const MESSAGE: &str = "
message hypovisor_calls {
    required int64 time (TIMESTAMP(NANOS,true));
    required int32 pcpu (INTEGER(32,false));
    required int64 sequence (INTEGER(64,false));
    optional int64 parent (INTEGER(64,false));
    required boolean is_continuation;
    optional int32 continues_pcpu (INTEGER(32,false));
    optional int64 continues_sequence (INTEGER(64,false));
    required int32 domain;
    required int32 vcpu;
    required binary mode (STRING);
    required int32 cpl;
    required int32 cs;
    required int64 rip (INTEGER(64,false));
    required int64 rsp (INTEGER(64,false));
    required int64 number (INTEGER(64,false));
    required binary hypercall (STRING);
    optional int64 sub_op_number;
    optional binary sub_op (STRING);
    required int64 arg1 (INTEGER(64,false));
    required int64 arg2 (INTEGER(64,false));
    required int64 arg3 (INTEGER(64,false));
    required int64 arg4 (INTEGER(64,false));
    required int64 arg5 (INTEGER(64,false));
    required int64 arg6 (INTEGER(64,false));
    required binary outcome (STRING);
    optional int64 result;
    optional binary errno (STRING);
    required boolean failed;
    optional int64 duration_ns;
    required boolean cut;
    required boolean injected;
    optional binary verdict (STRING);
    optional binary entry_memory;
    optional binary exit_memory;
}";

static SCHEMA: LazyLock<Result<SchemaDescPtr, String>> = LazyLock::new(|| {
    let message = parse_message_type(MESSAGE).map_err(|error| error.to_string())?;
    Ok(Arc::new(SchemaDescriptor::new(Arc::new(message))))
});

/// The schema of every segment.
pub(super) fn schema() -> Result<SchemaDescPtr, ParquetError> {
    SCHEMA.clone().map_err(ParquetError::General)
}
