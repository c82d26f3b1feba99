//! Landlock: the files and TCP ports that the daemon can reach, and no others.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use super::paths::{Grant, Need, Reach, grants};
use super::{Files, SandboxError};
use crate::config::{Config, Listen};

/// The newest version of Landlock's interface whose rights are named here. An older kernel leaves out what it does not
/// know; a newer one grants nothing more.
const KNOWN: ABI = ABI::V6;

/// Closes everything off but the grants. Execution is granted nowhere.
pub(super) fn close(config: &Config) -> Result<Files, SandboxError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    // A socket that systemd hands over is bound already.
    if let Listen::Address(address) = config.listen {
        rules = rules.add_rule(NetPort::new(address.port(), AccessNet::BindTcp))?;
    }
    for port in &config.sandbox.connect_ports {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    for Grant { path, reach, need } in grants(config)? {
        let opened = match (PathFd::new(&path), need) {
            (Ok(opened), _) => opened,
            (Err(_), Need::IfThere) => continue,
            (Err(error), Need::Always) => return Err(SandboxError::Path { path, why: error.to_string() }),
        };
        let rights = if path.is_dir() { rights(reach) } else { rights(reach) & AccessFs::from_file(KNOWN) };
        rules = rules.add_rule(PathBeneath::new(opened, rights))?;
    }
    let done = rules.restrict_self()?;
    Ok(match (done.ruleset, done.landlock) {
        (RulesetStatus::NotEnforced, LandlockStatus::NotEnabled) => Files::Open { why: "Landlock is switched off" },
        (RulesetStatus::NotEnforced, _) => Files::Open { why: "this kernel has no Landlock" },
        (_, LandlockStatus::Available { effective_abi, kernel_abi }) => {
            Files::Closed { abi: kernel_abi.unwrap_or(effective_abi as i32) }
        }
        _ => Files::Open { why: "Landlock does not say what it did" },
    })
}

fn rights(reach: Reach) -> BitFlags<AccessFs> {
    match reach {
        Reach::Files => AccessFs::ReadFile.into(),
        Reach::Tree => make_bitflags!(AccessFs::{ReadFile | ReadDir}),
        Reach::Device => make_bitflags!(AccessFs::{ReadFile | WriteFile | IoctlDev}),
        // No links, devices, sockets: the daemon makes none.
        Reach::Own => make_bitflags!(AccessFs::{
            ReadFile | ReadDir | WriteFile | RemoveDir | RemoveFile | MakeDir | MakeReg | Refer | Truncate
        }),
    }
}
