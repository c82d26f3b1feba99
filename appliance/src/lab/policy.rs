//! The policy that a lab's appliances start with.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::error::{LabError, file};
use super::files;

/// Which policy bundle each appliance gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LabPolicy {
    /// The one in `packaging/lab-policy`: wallet keys, and small transfers to the treasury on Sepolia.
    #[default]
    Starter,
    /// A copy of this folder, sealed.
    Folder(PathBuf),
    /// None, so that every request is denied.
    None,
}

/// The starter bundle's files, with their paths in the bundle.
const STARTER: [(&str, &str); 6] = [
    ("manifest.toml", include_str!("../../../packaging/lab-policy/manifest.toml")),
    ("keys.cedar", include_str!("../../../packaging/lab-policy/keys.cedar")),
    ("transfers.cedar", include_str!("../../../packaging/lab-policy/transfers.cedar")),
    ("entities.json", include_str!("../../../packaging/lab-policy/entities.json")),
    ("tests/keys.json", include_str!("../../../packaging/lab-policy/tests/keys.json")),
    ("tests/transfers.json", include_str!("../../../packaging/lab-policy/tests/transfers.json")),
];

/// Puts the bundle into the new folder `to`.
pub(super) fn install(policy: &LabPolicy, to: &Path) -> Result<(), LabError> {
    files::folder(to)?;
    match policy {
        LabPolicy::None => return Ok(()),
        LabPolicy::Folder(from) => copy(from, to)?,
        LabPolicy::Starter => {
            files::folder(&to.join("tests"))?;
            for (path, text) in STARTER {
                files::public(&to.join(path), text)?;
            }
        }
    }
    casemate_policy::bundle::seal(to, Timestamp::now())?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), LabError> {
    for entry in std::fs::read_dir(from).map_err(file("read the folder", from))? {
        let path = entry.map_err(file("read the folder", from))?.path();
        let Some(name) = path.file_name() else { continue };
        let target = to.join(name);
        if path.is_dir() {
            files::folder(&target)?;
            copy(&path, &target)?;
        } else {
            std::fs::copy(&path, &target).map_err(file("copy", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use casemate_policy::Bundle;

    #[test]
    fn the_starter_bundle_stands_sealed_in_the_source_tree_and_loads() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("policy");
        install(&LabPolicy::Starter, &dir).unwrap();
        let bundle = Bundle::load(&dir, &[]).unwrap();
        let changed_since_sealing = bundle.version() != 1 || bundle.previous().is_some();
        assert!(!changed_since_sealing, "the hashes in packaging/lab-policy/manifest.toml are not those of its files");
        assert_eq!(bundle.name(), "lab-starter");
    }

    #[test]
    fn a_folder_of_ones_own_is_copied_whole_and_sealed() {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        install(&LabPolicy::Starter, &first).unwrap();
        std::fs::remove_file(first.join("manifest.toml")).unwrap();
        install(&LabPolicy::Folder(first), &second).unwrap();
        assert_eq!(Bundle::load(&second, &[]).unwrap().name(), "policy");
    }
}
