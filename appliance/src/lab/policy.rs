//! The policy that a lab's appliances start with.

use std::path::{Path, PathBuf};

use casemate_policy::bundle::{SealFields, seal_as};
use jiff::Timestamp;

use super::error::{LabError, file};
use super::files;
use crate::cli::policy::starter::FILES;

/// Which policy bundle each appliance gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum LabPolicy {
    /// The one that `casemate policy init` writes: wallet keys, and limited transfers to the treasury on Sepolia.
    #[default]
    Starter,
    /// A copy of this folder, sealed.
    Folder(PathBuf),
    /// None, so that every request is denied.
    None,
}

/// Since when a lab's bundle is in force: the same for all parties, or each would have another digest.
const IN_FORCE: &str = "2025-01-01T00:00:00Z";

/// Puts the bundle into the new folder `to`.
pub(super) fn install(policy: &LabPolicy, to: &Path) -> Result<(), LabError> {
    files::folder(to)?;
    match policy {
        LabPolicy::None => return Ok(()),
        LabPolicy::Folder(from) => copy(from, to)?,
        LabPolicy::Starter => {
            files::folder(&to.join("tests"))?;
            for (path, text) in FILES {
                files::public(&to.join(path), text)?;
            }
            let fields = SealFields { name: Some("lab-starter".into()), ..SealFields::default() };
            seal_as(to, in_force(), &fields)?;
            return Ok(());
        }
    }
    seal_as(to, in_force(), &SealFields::default())?;
    Ok(())
}

fn in_force() -> Timestamp {
    IN_FORCE.parse().unwrap_or(Timestamp::UNIX_EPOCH)
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
    fn every_party_of_a_lab_gets_the_same_starter_bundle() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["party-1", "party-2"].map(|party| {
            let dir = folder.path().join(party);
            install(&LabPolicy::Starter, &dir).unwrap();
            let bundle = Bundle::load(&dir, &[]).unwrap();
            assert_eq!((bundle.name(), bundle.version()), ("lab-starter", 1));
            assert_eq!(bundle.not_before().to_string(), IN_FORCE);
            bundle.digest()
        });
        assert_eq!(first, second);
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
