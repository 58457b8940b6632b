//! Rule files in directories: found, read, and refused if they are none.

use std::fs;
use std::path::{Path, PathBuf};

use hypovisor_verdict::MAX_RULES;

use super::MAX_FILE_BYTES;
use crate::problem::Problem;

/// The deepest nesting of directories.
const MAX_DIRECTORY_DEPTH: usize = 8;

/// Reads the rule files at or below `path`.
pub(super) fn read_all(path: &Path, sources: &mut Vec<(PathBuf, String)>, problems: &mut Vec<Problem>) {
    let mut files = Vec::new();
    let before = problems.len();
    find(path, 0, &mut files, problems);
    files.sort();
    if files.is_empty() && problems.len() == before {
        problems.push(of_file(path, "there is no rule file (*.yaml) here".into()));
    }
    for file in files {
        match read(&file) {
            Ok(text) => sources.push((file, text)),
            Err(message) => problems.push(of_file(&file, message)),
        }
    }
}

/// Rule files at or below `path`.
fn find(path: &Path, depth: usize, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) => return problems.push(of_file(path, format!("cannot be read: {error}"))),
    };
    if !metadata.is_dir() {
        files.push(path.to_owned());
        return;
    }
    if depth > MAX_DIRECTORY_DEPTH {
        return problems
            .push(of_file(path, format!("more than {MAX_DIRECTORY_DEPTH} levels of directories")));
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => return problems.push(of_file(path, format!("cannot be read: {error}"))),
    };
    for entry in entries {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => return problems.push(of_file(path, format!("cannot be read: {error}"))),
        };
        let path = entry.path();
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if files.len() > MAX_RULES || hidden {
            continue;
        }
        if yaml || directory {
            find(&path, depth + 1, files, problems);
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = fs::metadata(file).map_err(cannot)?;
    if !metadata.is_file() {
        return Err("is no file".into());
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(format!("has {} bytes, more than {MAX_FILE_BYTES}", metadata.len()));
    }
    let bytes = fs::read(file).map_err(cannot)?;
    String::from_utf8(bytes).map_err(|error| format!("is no UTF-8 text: {error}"))
}

/// What is wrong with a whole file.
pub(super) fn of_file(file: &Path, message: String) -> Problem {
    Problem { file: file.to_owned(), line: 0, column: 0, field: String::new(), message }
}
