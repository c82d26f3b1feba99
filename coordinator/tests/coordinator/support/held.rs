//! What a fake appliance has of one key.

use casemate_wire::Succession;

/// How far the key has come there.
#[derive(Debug, Default, Clone)]
pub struct Held {
    pub newest_epoch: u64,
    pub succession: Option<Succession>,
    pub old_shares: u32,
}

impl Held {
    /// Switches by what proves a later epoch; the share that signed before is an old one then.
    pub fn move_to(&mut self, succession: &Succession) {
        let epoch = |succession: &Succession| succession.certificate.statement.epoch;
        if self.succession.as_ref().is_none_or(|known| epoch(known) < epoch(succession)) {
            self.succession = Some(succession.clone());
            self.newest_epoch = self.newest_epoch.max(epoch(succession));
            self.old_shares += 1;
        }
    }
}
