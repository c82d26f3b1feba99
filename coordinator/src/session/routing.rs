//! Where each frame goes. Bodies stay what they are: the coordinator cannot read those that are for one party.

use bytes::Bytes;
use casemate_wire::envelope::To;
use casemate_wire::frame::Frame;
use casemate_wire::{Code, PartyId, Problem, SessionId};

/// Routes the frames of one session.
pub(crate) struct Router {
    session: SessionId,
    /// By position in the roster.
    parties: Vec<Party>,
}

struct Party {
    id: PartyId,
    greeted: bool,
}

/// A frame and the positions of those it goes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) to: Vec<usize>,
    pub(crate) frame: Bytes,
}

impl Router {
    /// `parties` in roster order.
    pub(crate) fn new(session: SessionId, parties: impl IntoIterator<Item = PartyId>) -> Self {
        let parties = parties.into_iter().map(|id| Party { id, greeted: false });
        Self { session, parties: parties.collect() }
    }

    /// Takes a frame from the authenticated stream of the party at position `from`.
    ///
    /// # Errors
    /// The frame claims another session or sender, or goes nowhere: the sender is at fault and its session ends.
    /// Recipients check all of this again by signature; here it keeps a broken party from costing them work.
    pub(crate) fn route(&mut self, from: usize, frame: &Frame) -> Result<Forward, Problem> {
        let to = match frame {
            Frame::Hello(signed) => {
                let (view, own) = (&signed.hello.view, &signed.hello.own);
                let session = &self.session;
                let party = self.parties.get_mut(from).ok_or_else(unknown_position)?;
                if view.session_id != *session || own.party != party.id {
                    return Err(fault(&party.id, "sent a hello of another session or party"));
                }
                if party.greeted {
                    return Err(fault(&party.id, "sent a second hello"));
                }
                party.greeted = true;
                self.others(from)
            }
            Frame::Message(signed) => {
                let content = &signed.content;
                let party = &self.parties.get(from).ok_or_else(unknown_position)?.id;
                if content.session != self.session || usize::from(content.from) != from {
                    return Err(fault(party, "sent a message of another session or party"));
                }
                match content.to {
                    To::All => self.others(from),
                    To::Party(position) => {
                        let position = usize::from(position);
                        if position == from || position >= self.parties.len() {
                            return Err(fault(party, "sent a message to nobody"));
                        }
                        vec![position]
                    }
                }
            }
            // A party's last word is for the coordinator alone.
            Frame::Outcome(_) => Vec::new(),
        };
        let bytes = frame.encode().map_err(|e| {
            let detail = format!("a frame could not be passed on: {e}");
            Problem::new(Code::TransportFault, detail)
        })?;
        Ok(Forward { to, frame: bytes.into() })
    }

    fn others(&self, from: usize) -> Vec<usize> {
        (0..self.parties.len()).filter(|position| *position != from).collect()
    }
}

fn unknown_position() -> Problem {
    Problem::new(Code::Internal, "a frame came from a party that does not take part")
}

fn fault(party: &PartyId, why: &str) -> Problem {
    Problem::new(Code::PeerFault, format!("{party} {why}")).with("party", party.as_str())
}

#[cfg(test)]
mod tests;
