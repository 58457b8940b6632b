//! Reads one column of a row group.

use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{DataType, Int32Type};
use parquet::errors::ParquetError;
use parquet::file::reader::RowGroupReader;

/// What is wrong with a segment.
pub(super) struct Malformed(pub(super) String);

impl From<ParquetError> for Malformed {
    fn from(error: ParquetError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Malformed {
    fn from(what: String) -> Self {
        Self(what)
    }
}

impl From<&str> for Malformed {
    fn from(what: &str) -> Self {
        Self(what.to_owned())
    }
}

/// A row group to take columns from, by name: their order and further columns do not matter.
pub(super) struct Source<'a>(pub(super) &'a dyn RowGroupReader);

impl Source<'_> {
    /// A column that recordings of earlier versions lack.
    pub(super) fn later_column<T: DataType>(
        &self,
        name: &'static str,
    ) -> Result<Option<Reader<T>>, Malformed> {
        let schema = self.0.metadata().schema_descr();
        let there = schema.columns().iter().any(|column| column.path().string() == name);
        there.then(|| self.column(name)).transpose()
    }

    pub(super) fn column<T: DataType>(&self, name: &'static str) -> Result<Reader<T>, Malformed> {
        let schema = self.0.metadata().schema_descr();
        let found = schema.columns().iter().position(|column| column.path().string() == name);
        let Some(index) = found else { return Err(format!("it has no column {name}").into()) };
        let column = schema.column(index);
        let flat = column.max_rep_level() == 0 && column.max_def_level() <= 1;
        if column.physical_type() != T::get_physical_type() || !flat {
            return Err(format!("column {name} has another type").into());
        }
        let chunk = self.0.metadata().column(index);
        let first = chunk.dictionary_page_offset().unwrap_or(0).min(chunk.data_page_offset());
        if first < 0 || chunk.compressed_size() < 0 {
            return Err(format!("column {name} is nowhere in the file").into());
        }
        let reader = get_typed_column_reader(self.0.get_column_reader(index)?);
        Ok(Reader {
            name,
            nullable: column.max_def_level() == 1,
            reader,
            levels: Vec::new(),
            values: Vec::new(),
            next_level: 0,
            next_value: 0,
        })
    }
}

/// A column and the block of it that is decoded.
pub(super) struct Reader<T: DataType> {
    name: &'static str,
    nullable: bool,
    reader: ColumnReaderImpl<T>,
    levels: Vec<i16>,
    values: Vec<T::T>,
    next_level: usize,
    next_value: usize,
}

impl<T: DataType> Reader<T> {
    /// Decodes the next `rows` rows.
    pub(super) fn fill(&mut self, rows: usize) -> Result<(), Malformed> {
        self.levels.clear();
        self.values.clear();
        self.next_level = 0;
        self.next_value = 0;
        let levels = self.nullable.then_some(&mut self.levels);
        let (records, ..) = self.reader.read_records(rows, levels, None, &mut self.values)?;
        if records == rows { Ok(()) } else { Err(format!("column {} ends early", self.name).into()) }
    }

    /// The value in the next row.
    #[allow(clippy::should_implement_trait, reason = "it is not an iterator: None is a null, not the end")]
    pub(super) fn next(&mut self) -> Option<T::T> {
        if self.nullable {
            let level = self.levels.get(self.next_level).copied();
            self.next_level += 1;
            level.filter(|level| *level == 1)?;
        }
        let value = self.values.get(self.next_value).cloned();
        self.next_value += 1;
        value
    }

    /// The value in the next row of a column that has no nulls.
    pub(super) fn required(&mut self) -> Result<T::T, Malformed> {
        self.next().ok_or_else(|| format!("column {} has a null", self.name).into())
    }
}

impl Reader<Int32Type> {
    /// As [`Reader::required`], for a number that fits a smaller type.
    pub(super) fn narrow<N: TryFrom<i32>>(&mut self, name: &str) -> Result<N, Malformed> {
        let value = self.required()?;
        N::try_from(value).map_err(|_| format!("{value} is no {name}").into())
    }
}
