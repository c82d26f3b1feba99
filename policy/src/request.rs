//! What policies see of a request, besides the effects of its intent.

use std::collections::BTreeSet;

use casemate_wire::{PublicKey, ShareType};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::intent::Understood;
use crate::totals::Totals;

/// One request for a decision.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: Client,
    /// What is asked for.
    pub action: Action,
    /// What it is asked of.
    pub resource: Resource,
    /// The decoded intent. `None` with [`Action::Sign`] is a request to sign blindly.
    pub understood: Option<&'a Understood>,
    /// What the ledger says of this request, which must be entered before it is judged: [`Bundle::reserve`]. A request to
    /// sign without it is denied; others have none.
    ///
    /// [`Bundle::reserve`]: crate::Bundle::reserve
    pub spent: Option<&'a Totals>,
    /// Verified approvals.
    pub approvals: Approvals,
    /// The appliance's wall clock.
    pub time: Timestamp,
    /// The session that was convened.
    pub session: SessionFacts,
    /// The BIP-32 path below the key.
    pub derivation_path: Option<String>,
    /// Whether every peer has shown fresh attestation.
    pub peers_attested: bool,
}

/// A configured client: `Mpc::Client`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// Its configured name.
    pub name: String,
    /// Its roles.
    #[serde(default)]
    pub roles: BTreeSet<String>,
    /// Its organisation.
    #[serde(default)]
    pub org: String,
}

/// What is asked for: `Mpc::Action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Make a key.
    Keygen,
    /// Sign one hash.
    Sign,
    /// Make presignatures ahead.
    Presign,
    /// Refresh a key's shares or change its committee.
    Rotate,
    /// Revoke this party's share.
    Revoke,
    /// Back this appliance up.
    Backup,
}

impl Action {
    /// The id of the `Mpc::Action` entity.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keygen => "Keygen",
            Self::Sign => "Sign",
            Self::Presign => "Presign",
            Self::Rotate => "Rotate",
            Self::Revoke => "Revoke",
            Self::Backup => "Backup",
        }
    }
}

/// What a request is asked of. Each action takes one kind; another kind is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// A key, for signing and everything else that needs one.
    Key(KeyFacts),
    /// A key that does not exist yet, for keygen.
    KeySlot(SlotFacts),
    /// This appliance, for backups.
    Appliance,
}

/// What policies see of a key. Take these from the share's authenticated header only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyFacts {
    /// The public key, which is the entity's id.
    pub public_key: PublicKey,
    /// What is known of it since before it existed.
    pub slot: SlotFacts,
    /// Whole days since keygen.
    pub age_days: u32,
    /// Whether this appliance's share came out of a backup.
    pub restored: bool,
}

/// What policies see of a key before it exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotFacts {
    /// What it is for.
    pub kind: ShareType,
    /// Parties needed to sign.
    pub threshold_t: u16,
    /// Parties in all.
    pub threshold_n: u16,
    /// Its label, by which the bundle may put it into key groups.
    pub label: Option<String>,
}

/// What policies see of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// The parties that take part.
    pub participants: BTreeSet<String>,
    /// Parties needed to sign with the key.
    pub threshold_t: u16,
    /// Those participants that are users' devices.
    pub devices: BTreeSet<String>,
    /// The committee that a rotation would make.
    pub new_roster: Option<NewRoster>,
}

/// The committee after a rotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewRoster {
    /// Its parties.
    pub parties: BTreeSet<String>,
    /// Parties needed to sign.
    pub threshold_t: u16,
    /// Parties in all.
    pub threshold_n: u16,
}

/// Approvals that were verified. Other crates get them from [`crate::approval::count`], or have [`Approvals::none`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Approvals {
    pub(crate) count: u16,
    pub(crate) distinct_orgs: u16,
    pub(crate) names: BTreeSet<String>,
}

impl Approvals {
    /// Nobody has approved.
    pub fn none() -> Self {
        Self::default()
    }
}
