//! A new key: auxiliary info where the committee has none, key generation, the last confirmation.
//!
//! The share is durable, as pending, before this party confirms; it becomes active when all have confirmed. So no
//! confirmation is ever given for a share that could be lost.

use std::sync::Arc;

use casemate_hsm::KeyPurpose;
use casemate_mpc::{Cggmp21, DkgParams, DkgShare, Limits, Scheme};
use casemate_wire::certificate::IdentitySignature;
use casemate_wire::{Code, Digest32, KeyCertificate, KeyStatement, PublicKey, SessionId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::super::share::KeyShare;
use super::super::share::{ShareHeader, SharedKey};
use super::auxiliary::{self, Auxiliary};
use super::{KeyMade, internal, pending};
use crate::daemon::Node;
use crate::session::{Failure, Link, Phase, read_body, to_body};

/// What each party has already, so that all of them take the same way.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opening {
    aux: Option<Digest32>,
}

/// What each party confirms at the end.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    /// Also part of the key statement; here to tell a difference from a bad signature.
    confirmation: Digest32,
    /// By its identity key over the key statement.
    signature: IdentitySignature,
}

pub(super) async fn run(node: &Arc<Node>, link: &mut Link, session: SessionId) -> Result<Box<KeyMade>, Failure> {
    let Auxiliary { info: aux, digest: aux_digest, made: committee } = auxiliary_info(node, link).await?;
    let view = link.channel().view().clone();
    let params = DkgParams {
        execution_id: link.execution_id(Phase::Dkg),
        position: link.position(),
        t: view.threshold.t(),
        n: view.threshold.n(),
    };
    let limits = Limits::dkg(view.threshold.n());
    let dkg: DkgShare = link
        .drive(Phase::Dkg, limits, |wiring, limits| <Cggmp21 as Scheme>::dkg(&node.engine, params, limits, wiring))
        .await?;
    let public_shares = dkg.public_shares();
    let share = KeyShare::from_parts(dkg, &aux).map_err(|e| internal(&e))?;
    let key = SharedKey {
        public_key: PublicKey::from_bytes(&share.public_key()).map_err(|e| internal(&e))?,
        scheme: <Cggmp21 as Scheme>::ID.into(),
        threshold: view.threshold,
        epoch: 1,
        roster: view.roster.clone(),
    };
    let share_type = view.share_type.ok_or_else(|| Failure::new(Code::Internal, "keygen has no share type"))?;
    let statement = KeyStatement {
        public_key: key.public_key,
        chain_code: share.chain_code(),
        scheme: key.scheme.clone(),
        threshold_t: view.threshold.t(),
        threshold_n: view.threshold.n(),
        roster: view.roster.clone(),
        epoch: key.epoch,
        share_type,
        label: view.label.clone(),
        confirmation: confirmation(link, aux_digest, &public_shares),
    };
    let header = ShareHeader {
        version: ShareHeader::VERSION,
        share_id: uuid::Uuid::new_v4().to_string(),
        party_id: node.config.party.clone(),
        key,
        share_type,
        label: view.label,
        created: jiff::Timestamp::now().as_second(),
        restored: false,
        joined: None,
        dealt_from: None,
    };
    let share_id = header.share_id.clone();
    pending::store(node, &header, &share, &statement, session, None).await?;
    drop(share);
    let certificate = confirm(node, link, statement).await?;
    let threshold = link.channel().view().threshold;
    Ok(Box::new(KeyMade { share_id, certificate, committee, threshold }))
}

/// Loads the committee's auxiliary info where all parties hold the same, and makes it otherwise.
async fn auxiliary_info(node: &Arc<Node>, link: &mut Link) -> Result<Auxiliary, Failure> {
    let committee = link.roster().clone();
    let known = auxiliary::known(node, &committee).await?;
    let own = known.as_ref().map(|row| row.aux_digest);
    let openings = link.exchange(Phase::Opening, to_body(&Opening { aux: own })?).await?;
    let mut same = own.is_some();
    for (position, bytes) in (0u16..).zip(&openings) {
        let opening: Opening = read_body(link.roster(), position, bytes)?;
        same &= opening.aux == own;
    }
    match known {
        Some(row) if same => auxiliary::load(node, &row).await,
        _ => auxiliary::make(node, link, &committee).await,
    }
}

/// Over everything that the parties must have seen alike.
fn confirmation(link: &Link, aux_digest: Digest32, public_shares: &[[u8; 33]]) -> Digest32 {
    let mut hash = Sha256::new();
    hash.update(b"casemate/keygen-confirmation/v1");
    hash.update(link.transcript());
    hash.update(aux_digest.0);
    for share in public_shares {
        hash.update(share);
    }
    Digest32(hash.finalize().into())
}

/// Everybody signs the key statement, confirmation included; nothing becomes active before all have.
async fn confirm(node: &Node, link: &mut Link, statement: KeyStatement) -> Result<KeyCertificate, Failure> {
    let to_sign = statement.to_sign();
    let signature = IdentitySignature(node.hsm.sign(KeyPurpose::Identity, &to_sign).await?);
    let bodies = link
        .exchange(Phase::Confirm, to_body(&Confirmation { confirmation: statement.confirmation, signature })?)
        .await?;
    let mut signatures = Vec::with_capacity(bodies.len());
    for (position, bytes) in (0u16..).zip(&bodies) {
        let theirs: Confirmation = read_body(link.roster(), position, bytes)?;
        if theirs.confirmation != statement.confirmation {
            let name = link.roster().member(position).map(|member| member.party_id.to_string()).unwrap_or_default();
            let detail = format!("{name} saw other messages in this session than this party; nothing was activated");
            return Err(Failure::new(Code::ProtocolAborted, detail));
        }
        signatures.push(theirs.signature);
    }
    let certificate = KeyCertificate { statement, signatures };
    certificate.verify(|member| node.config.known_member(member, &node.identity))?;
    Ok(certificate)
}
