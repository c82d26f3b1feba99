//! What the operators of several hosts do together when one of them has another HSM than before.

use std::fs;
use std::path::Path;

use casemate_appliance::clients::Role;
use casemate_attest::AuditKey;
use casemate_wire::IdentityKey;
use serde_json::json;

use crate::TestLab;

impl TestLab {
    /// Writes into every configuration, the coordinator's too, that a party has these keys from now on, and that its identity
    /// of before was its own. Nothing that reads them may run.
    pub fn moved_to(&mut self, index: usize, identity: IdentityKey, audit: AuditKey) {
        let (former, before) = (self.parties[index].identity.to_string(), self.parties[index].audit.to_string());
        let pinned = format!("identity = \"{identity}\"\nformer_identities = [\"{former}\"]");
        let pin = |text: &str| text.replace(&format!("identity = \"{former}\""), &pinned);
        for party in 0..self.parties.len() {
            self.configure(party, |text| {
                if party == index {
                    return text.replace("[party]\n", &format!("[party]\nformer_identities = [\"{former}\"]\n"));
                }
                let audit = audit.to_string();
                let changed = pin(&text).replace(&before, &audit);
                assert!(
                    changed.contains(&pinned) && changed.contains(&audit),
                    "party {party} pins it otherwise: {text}"
                );
                changed
            });
        }
        rewrite(&self.coordinator.config, pin);
        let party = &mut self.lab.parties[index];
        (party.identity, party.audit) = (identity, audit);
    }

    /// Takes every former identity out of every configuration. Nothing that reads them may run.
    pub fn forget_former_identities(&self) {
        (0..self.parties.len()).for_each(|party| self.configure(party, |text| without_former_identities(&text)));
        rewrite(&self.coordinator.config, without_former_identities);
    }

    /// The operators of these parties accept the log that another one has now.
    pub async fn accept_log(&self, of: usize, at: &[usize], reason: &str) {
        let note = self.client(of, Role::Auditor).get("audit/checkpoint").await;
        let note = String::from_utf8(note.body.to_vec()).unwrap();
        let acceptance = json!({"reason": reason, "checkpoint": note});
        for party in at {
            let path = format!("peers/{}/accept", self.parties[of].party_id);
            let accepted = self.client(*party, Role::Operator).post(&path, &acceptance).await;
            assert_eq!(accepted.status, 200, "{accepted}");
        }
    }
}

/// A configuration in which nobody had another identity before.
pub fn without_former_identities(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with("former_identities")).collect()
}

/// Changes a file.
fn rewrite(path: &Path, change: impl FnOnce(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, change(&text)).unwrap();
}
