//! Unseal: the HSM opens what the session needs, after the intent is durable and everybody is known.

use std::sync::Arc;

use casemate_wire::Code;
use casemate_wire::envelope::SessionView;

use super::join::{Case, Reach};
use super::run::{End, Finished};
use super::share::{KeyShare, ShareHeader};
use super::succeed::RotateAct;
use super::understand::{Act, SignAct};
use super::witness::Witnessed;
use crate::daemon::Node;
use crate::sealing;
use crate::session::{Failure, Link};
use crate::store::ShareRow;

/// A session that has all it needs. Only [`unseal`] makes one.
pub(super) struct Opened {
    pub(super) case: Case,
    pub(super) link: Link,
    pub(super) work: Work,
}

/// What is to be run.
pub(super) enum Work {
    Keygen,
    Sign {
        share: Arc<KeyShare>,
        share_id: String,
        path: Option<Vec<u32>>,
    },
    /// The old share, where this party holds one: a dealer deals from it, and everybody else compares it with what is dealt from.
    Rotate {
        act: Box<RotateAct>,
        share: Option<Arc<KeyShare>>,
    },
}

/// Opens the share for a signature; keygen has none yet.
pub(super) async fn unseal(node: &Arc<Node>, witnessed: Witnessed) -> Result<Opened, Finished> {
    let Witnessed { mut case, act, link } = witnessed;
    if let Err(withdrawn) = link.check() {
        return Err(case.end(Some(link.into_stream()), End::Failed(withdrawn)));
    }
    let work = match act {
        Act::Keygen { .. } => Ok(Work::Keygen),
        Act::Sign(act) => sign(node, *act, link.channel().view()).await,
        Act::Rotate(act) => rotate(node, act).await,
    };
    match work {
        Ok(work) => {
            case.reach = Reach::Opened;
            Ok(Opened { case, link, work })
        }
        Err(failure) => Err(case.end(Some(link.into_stream()), End::Failed(failure))),
    }
}

async fn sign(node: &Node, act: SignAct, view: &SessionView) -> Result<Work, Failure> {
    let key = &act.header.key;
    if view.key != Some(key.public_key) || view.epoch != key.epoch {
        return Err(not_its_own());
    }
    let share = open_share(node, &act.share, &act.header).await?;
    Ok(Work::Sign { share, share_id: act.share.id, path: act.path })
}

async fn rotate(node: &Node, act: Box<RotateAct>) -> Result<Work, Failure> {
    let share = match &act.held {
        Some(held) => Some(open_share(node, &held.share, &held.header).await?),
        None => None,
    };
    Ok(Work::Rotate { act, share })
}

async fn open_share(node: &Node, row: &ShareRow, header: &ShareHeader) -> Result<Arc<KeyShare>, Failure> {
    let sealed = row.material.held().ok_or_else(not_its_own)?;
    let plain = sealing::open(&node.hsm, "share", sealed).await?;
    let loaded = node.engine.compute().run(move || KeyShare::from_bytes(&plain)).await;
    let share = loaded.and_then(|share| share).map_err(|e| Failure::new(Code::Internal, e.to_string()))?;
    if header.describes(&share, &row.statement) { Ok(Arc::new(share)) } else { Err(not_its_own()) }
}

fn not_its_own() -> Failure {
    Failure::new(Code::Internal, "the stored share does not belong to its header; restore it from a backup")
}
