//! The section `[attestation]`, and what peers' attestations are appraised by.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use casemate_attest::attestation::Reference;
use casemate_tpm::Tpm;
use casemate_wire::PartyId;
use serde::Deserialize;

use super::Peer;

/// The TPM of this host, and what peers' attestations are appraised by.
#[derive(Debug, Default)]
pub struct Attestation {
    /// Quotes its PCRs in every attestation.
    pub tpm: Option<Tpm>,
    /// What each peer's attestation should say, for peers that have a reference file.
    pub references: BTreeMap<PartyId, Reference>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttestationSection {
    tpm: Option<String>,
    pcrs: Option<Vec<u8>>,
}

/// PCRs that measure firmware, its configuration and the boot loader.
const USUAL_PCRS: [u8; 6] = [0, 1, 2, 3, 4, 7];

impl AttestationSection {
    /// Reads the peers' reference files; an error names the key and what is wrong.
    pub(super) fn check(self, folder: &Path, peers: &[Peer]) -> Result<Attestation, (&'static str, String)> {
        let tpm = match (self.tpm, self.pcrs) {
            (None, None) => None,
            (None, Some(_)) => return Err(("attestation.pcrs", "there is no attestation.tpm that could quote".into())),
            (Some(name), pcrs) => {
                let tpm = Tpm::new(&name, pcrs.as_deref().unwrap_or(&USUAL_PCRS));
                Some(tpm.map_err(|error| ("attestation.tpm", error.to_string()))?)
            }
        };
        keys_have_one_purpose(peers)?;
        let mut references = BTreeMap::new();
        for peer in peers {
            if let Some(path) = &peer.reference {
                references.insert(peer.party_id.clone(), reference(peer, &folder.join(path))?);
            }
        }
        Ok(Attestation { tpm, references })
    }
}

fn reference(peer: &Peer, path: &Path) -> Result<Reference, (&'static str, String)> {
    let bad = |why: String| ("peer.reference", format!("{}: {why}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let reference = Reference::parse(&text).map_err(|error| bad(error.to_string()))?;
    if reference.party != peer.party_id {
        return Err(bad(format!("it is of {}, not of {}", reference.party, peer.party_id)));
    }
    if peer.attest.as_ref().is_some_and(|key| *key != reference.attest_key) {
        return Err(bad("its attest key is another one than peer.attest; keep the one that the HSM shows".into()));
    }
    if reference.attest_key.is_identity(&peer.identity) {
        return Err(bad("its attest key is the peer's identity key".into()));
    }
    Ok(reference)
}

fn keys_have_one_purpose(peers: &[Peer]) -> Result<(), (&'static str, String)> {
    for (place, peer) in peers.iter().enumerate() {
        let Some(attest) = &peer.attest else { continue };
        let name = &peer.party_id;
        if peers.iter().any(|other| attest.is_identity(&other.identity)) {
            return Err(("peer", format!("the attest key of {name} is an identity key")));
        }
        if peers.iter().any(|other| attest.is_audit(&other.audit)) {
            return Err(("peer", format!("the attest key of {name} is an audit key")));
        }
        if let Some(other) = peers.iter().take(place).find(|other| other.attest.as_ref() == Some(attest)) {
            return Err(("peer", format!("{} and {name} have the same attest key", other.party_id)));
        }
    }
    Ok(())
}
