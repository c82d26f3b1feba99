//! Files and folders of a lab, each with its mode from the moment it exists.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::{LabError, file};

/// Makes a folder for its owner alone, with the folders above it.
pub(super) fn folder(path: &Path) -> Result<(), LabError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file("make the folder", path))
}

/// Writes a new file that anybody may read who reaches it.
pub(super) fn public(path: &Path, contents: &str) -> Result<(), LabError> {
    write(path, 0o644, contents)
}

/// Writes a new file for its owner alone.
pub(super) fn secret(path: &Path, contents: &str) -> Result<(), LabError> {
    write(path, 0o600, contents)
}

fn write(path: &Path, mode: u32, contents: &str) -> Result<(), LabError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(contents.as_bytes()));
    written.map_err(file("write", path))
}

/// Replaces a file that is there.
pub(super) fn replace(path: &Path, contents: &str) -> Result<(), LabError> {
    fs::write(path, contents).map_err(file("write", path))
}

/// Whether there is nothing at the path, or an empty folder.
pub(super) fn is_free(path: &Path) -> Result<bool, LabError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(file("read the folder", path)(error)),
    }
}
