//! Writes a batch as one Parquet file.
//!
//! ```text
//!  "PAR1" │ column 1: [dictionary page] data page │ column 2 … │ footer │ footer's length │ "PAR1"
//! ```
//!
//! One row group, one data page a column. The pages are ours (see [`super::pages`]); only guest memory is
//! compressed, if there is time: the other columns are dense already, and LZ4 costs half as much as all the rest. Page
//! headers and the footer come from the `parquet` crate. A file is written under a name that starts with a dot
//! and renamed when it is complete. There is no `fsync`: a killed engine loses nothing by that, and a machine
//! that loses power may lose the last seconds.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use lz4_flex::block;
use parquet::basic::{Compression, Encoding};
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::SchemaDescPtr;

use super::batch::{Batch, Column, Values};
use super::delta;
use super::error::RecordingError;
use super::pages::Dictionary;
use super::schema::{FORMAT, VERSION, schema};
use super::{segment_path, unfinished_path};

/// What Parquet files begin and end with.
const MAGIC: &[u8] = b"PAR1";
/// Version of Parquet's file metadata.
const PARQUET_VERSION: i32 = 1;

/// Writes segments; keeps its buffers from one to the next.
#[derive(Debug, Default)]
pub(super) struct SegmentWriter {
    page: Vec<u8>,
    compress: bool,
}

impl SegmentWriter {
    /// Writes `batch` as segment `number` of `dir`, its guest memory compressed or not.
    pub(super) fn write(
        &mut self,
        dir: &Path,
        number: u64,
        batch: &Batch,
        compress: bool,
    ) -> Result<(), RecordingError> {
        self.compress = compress;
        let unfinished = unfinished_path(dir, number);
        let written = self.write_file(&unfinished, batch).and_then(|()| {
            let path = segment_path(dir, number);
            std::fs::rename(&unfinished, &path).map_err(RecordingError::writing(&path))
        });
        if written.is_err() {
            // What remains is of no use to anyone; should this fail too, the next writer removes it.
            let _ = std::fs::remove_file(&unfinished);
        }
        written
    }

    fn write_file(&mut self, path: &Path, batch: &Batch) -> Result<(), RecordingError> {
        let file = File::create(path).map_err(RecordingError::writing(path))?;
        let schema = schema().map_err(|error| RecordingError::encoding(path, error))?;
        let mut sink = TrackedWrite::new(file);
        self.write_parquet(&mut sink, &schema, batch).map_err(|error| RecordingError::encoding(path, error))
    }

    fn write_parquet(
        &mut self,
        sink: &mut TrackedWrite<File>,
        schema: &SchemaDescPtr,
        batch: &Batch,
    ) -> Result<(), ParquetError> {
        sink.write_all(MAGIC)?;
        let mut group = RowGroupMetaData::builder(schema.clone()).set_num_rows(batch.rows as i64);
        let mut total_bytes = 0;
        for (index, column) in batch.columns().into_iter().enumerate() {
            let times = batch.times.filter(|_| index == 0);
            let chunk = self.write_column(sink, schema, index, &column, batch.rows, times)?;
            total_bytes += chunk.uncompressed_size();
            group = group.add_column_metadata(chunk);
        }
        let group = group.set_total_byte_size(total_bytes).build()?;
        write_footer(sink, schema, batch.rows, group)
    }

    fn write_column(
        &mut self,
        sink: &mut TrackedWrite<File>,
        schema: &SchemaDescPtr,
        index: usize,
        column: &Column<'_>,
        rows: usize,
        times: Option<(i64, i64)>,
    ) -> Result<ColumnChunkMetaData, ParquetError> {
        let mut pages = SerializedPageWriter::new(sink);
        let dictionary = match column.values {
            Values::Ids(_, dictionary) => Some(self.write_dictionary(&mut pages, dictionary)?),
            _ => None,
        };
        let data = self.write_data(&mut pages, column, rows)?;
        let written = [dictionary.as_ref(), Some(&data)].into_iter().flatten();
        let (compressed, uncompressed) = written.fold((0, 0), |(compressed, uncompressed), page| {
            (compressed + page.compressed_size, uncompressed + page.uncompressed_size)
        });
        let mut chunk = ColumnChunkMetaData::builder(schema.column(index))
            .set_compression(self.compression(column))
            .set_encodings(vec![Encoding::RLE, Encoding::PLAIN, encoding(column)])
            .set_num_values(rows as i64)
            .set_total_compressed_size(compressed as i64)
            .set_total_uncompressed_size(uncompressed as i64)
            .set_dictionary_page_offset(dictionary.map(|page| page.offset as i64))
            .set_data_page_offset(data.offset as i64);
        if let Some((low, high)) = times {
            chunk = chunk.set_statistics(Statistics::int64(Some(low), Some(high), None, Some(0), false));
        }
        chunk.build()
    }

    const fn compression(&self, column: &Column<'_>) -> Compression {
        match column.values {
            Values::Blobs(_) if self.compress => Compression::LZ4_RAW,
            _ => Compression::UNCOMPRESSED,
        }
    }

    fn write_dictionary(
        &mut self,
        pages: &mut SerializedPageWriter<'_, File>,
        dictionary: &Dictionary,
    ) -> Result<PageWriteSpec, ParquetError> {
        let bytes = dictionary.as_bytes();
        let page = Page::DictionaryPage {
            buf: bytes.to_vec().into(),
            num_values: u32::from(dictionary.len()),
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        pages.write_page(CompressedPage::new(page, bytes.len()))
    }

    fn write_data(
        &mut self,
        pages: &mut SerializedPageWriter<'_, File>,
        column: &Column<'_>,
        rows: usize,
    ) -> Result<PageWriteSpec, ParquetError> {
        write_page_bytes(&mut self.page, column);
        let stored = match self.compression(column) {
            Compression::LZ4_RAW => block::compress(&self.page),
            _ => self.page.clone(),
        };
        let page = Page::DataPage {
            buf: stored.into(),
            num_values: rows as u32,
            encoding: encoding(column),
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        pages.write_page(CompressedPage::new(page, self.page.len()))
    }
}

const fn encoding(column: &Column<'_>) -> Encoding {
    match column.values {
        Values::Longs(_) => Encoding::DELTA_BINARY_PACKED,
        Values::Blobs(_) | Values::Bits(_) => Encoding::PLAIN,
        Values::Ids(..) => Encoding::RLE_DICTIONARY,
    }
}

/// Puts a column's data page together in `page`.
fn write_page_bytes(page: &mut Vec<u8>, column: &Column<'_>) {
    page.clear();
    if let Some(levels) = column.levels {
        levels.write_levels(page);
    }
    match column.values {
        Values::Longs(values) => delta::write(&values.0, page),
        Values::Blobs(values) => page.extend_from_slice(&values.0),
        Values::Bits(bits) => bits.write(page),
        Values::Ids(ids, dictionary) => ids.write(dictionary, page),
    }
}

fn write_footer(
    sink: &mut TrackedWrite<File>,
    schema: &SchemaDescPtr,
    rows: usize,
    group: RowGroupMetaData,
) -> Result<(), ParquetError> {
    let about = vec![KeyValue::new("format".to_owned(), format!("{FORMAT} {VERSION}"))];
    let created_by = format!("hypovisor version {}", env!("CARGO_PKG_VERSION"));
    let file =
        FileMetaData::new(PARQUET_VERSION, rows as i64, Some(created_by), Some(about), schema.clone(), None);
    let metadata = ParquetMetaData::new(file, vec![group]);
    // Through memory, because the metadata writer swallows what goes wrong in its last flush.
    let mut footer = Vec::new();
    ParquetMetaDataWriter::new(&mut footer, &metadata).finish()?;
    sink.write_all(&footer)?;
    sink.flush()?;
    Ok(())
}
