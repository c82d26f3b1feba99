//! One signature.

use std::sync::Arc;

use casemate_mpc::{Cggmp21, Limits, Scheme, SignParams};
use casemate_wire::{Code, EcdsaSignature, PublicKey};

use super::super::share::KeyShare;
use super::Signed;
use crate::daemon::Node;
use crate::session::{Failure, Link, Phase};

/// Runs signing; what it returns verifies against the key that was asked for.
pub(super) async fn run(
    node: &Node,
    link: &mut Link,
    share: Arc<KeyShare>,
    share_id: String,
    path: Option<Vec<u32>>,
) -> Result<Signed, Failure> {
    let internal = |why: String| Failure::new(Code::Internal, why);
    let view = link.channel().view();
    let digest = view.message_hash.ok_or_else(|| internal("a signing session has no message hash".into()))?;
    let key = match &path {
        Some(path) => share.child_public_key(path),
        None => Ok(share.public_key()),
    };
    let key = PublicKey::from_bytes(&key.map_err(|e| internal(e.to_string()))?).map_err(|e| internal(e.to_string()))?;
    let params = SignParams {
        execution_id: link.execution_id(Phase::Sign),
        position: link.position(),
        parties_at_keygen: view.roster.indices(),
        share,
        digest: digest.0,
        derivation_path: path,
    };
    let limits = Limits::sign(view.threshold.t());
    let made = link
        .drive(Phase::Sign, limits, |wiring, limits| <Cggmp21 as Scheme>::sign(&node.engine, params, limits, wiring))
        .await?;
    let signature = EcdsaSignature { r: *made.r(), s: *made.s(), v: made.v() };
    if signature.verifies(&key, &digest) {
        Ok(Signed { share_id, signature })
    } else {
        Err(Failure::new(Code::ProtocolAborted, "the protocol's result does not verify and was discarded"))
    }
}
