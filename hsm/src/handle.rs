//! The handle that the rest of Casemate holds.

use std::fmt;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use casemate_wire::RecoveryKey;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::anchor::Anchor;
use crate::config::HsmConfig;
use crate::error::HsmError;
use crate::keys::KeyPurpose;
use crate::module::Module;
use crate::profile::{HsmStatus, Profile};
use crate::queue::NotTaken;
use crate::recovery_entry::RecoveryEntry;
use crate::secret::Secret32;
use crate::session::OpenSession;
use crate::state::HsmState;
use crate::watch;
use crate::worker::{Call, Shared, Worker};
use crate::wrapped::WrappedKey;

/// One token, open and checked.
///
/// Calls may come from many tasks at once. Each is put into the bounded queue and done by one of the worker threads;
/// a call that is dropped or runs out of time before a thread takes it is never made.
///
/// Dropping the handle ends and joins its threads, like [`Hsm::shutdown`], but blocks meanwhile.
pub struct Hsm {
    shared: Arc<Shared>,
}

impl Hsm {
    /// Random bytes that one call gives at most.
    pub const MAX_RANDOM: usize = 4096;

    /// How long opening may take: loading the module, logging in, checking the keys and the canaries.
    const OPEN_LIMIT: Duration = Duration::from_secs(60);

    /// Loads the module, finds the token, logs in, checks every key, probes the wrapping, runs the canaries and starts
    /// the worker threads (FORMATS.md, "Keys in the HSM").
    ///
    /// The PIN is tried at most once. After a refusal the same PIN is not tried again in this process, and nothing is
    /// tried when one more wrong PIN would lock the token.
    ///
    /// # Errors
    /// [`HsmError`], which says what stands in the way and what to do about it.
    pub async fn open(config: HsmConfig) -> Result<Self, HsmError> {
        config.check()?;
        let (report, opened) = oneshot::channel();
        let watching = spawn("hsm-watch".into(), move || open_and_watch(config, report))?;
        let hsm = match tokio::time::timeout(Self::OPEN_LIMIT, opened).await {
            Ok(Ok(Ok(hsm))) => hsm,
            Ok(refused) => {
                // It has nothing left to do but to end.
                let _panic = watching.join();
                return Err(match refused {
                    Ok(Err(error)) => error,
                    _ => HsmError::Thread("ended while opening the token"),
                });
            }
            Err(_) => {
                return Err(HsmError::Timeout { limit: Self::OPEN_LIMIT });
            }
        };
        hsm.shared.threads().push(watching);
        for thread in 0..hsm.shared.config.threads {
            let worker = Worker::new(Arc::clone(&hsm.shared), thread);
            let started = spawn(format!("hsm-{thread}"), move || worker.run())?;
            hsm.shared.threads().push(started);
        }
        Ok(hsm)
    }

    /// Wraps a key under the live KEK, bound to `context` (any bytes; for a share, its header).
    ///
    /// # Errors
    /// [`HsmError::Busy`], [`HsmError::Timeout`], [`HsmError::Unavailable`] and the other states; what the token said.
    ///
    /// # Security
    /// The context must differ for every record that must not stand in for another one.
    pub async fn wrap(&self, context: &[u8], key: &Secret32) -> Result<WrappedKey, HsmError> {
        let (context, key) = (context.to_vec(), key.duplicate());
        let profile = self.shared.profile();
        self.call(move |session| session.wrap(profile.wrap, profile.live_epoch, &context, &key)).await
    }

    /// Unwraps an entry that was wrapped for the same `context`, with the KEK that the entry names.
    ///
    /// # Errors
    /// [`HsmError::Rejected`] when the entry or the context differs in any way from what was wrapped;
    /// [`HsmError::UnknownKek`] when the entry names a KEK that is not on the token; the errors of [`Hsm::wrap`].
    pub async fn unwrap(&self, context: &[u8], entry: &WrappedKey) -> Result<Secret32, HsmError> {
        let (context, entry) = (context.to_vec(), entry.clone());
        self.call(move |session| session.unwrap(&context, &entry)).await
    }

    /// Encrypts a key to a recovery HSM, bound to `context`, and signs that with the identity key. Only the recovery HSM
    /// opens it: see [`crate::RecoveryHsm`].
    ///
    /// # Errors
    /// As [`Hsm::wrap`].
    ///
    /// # Security
    /// Whoever holds the recovery HSM can open the key; recipients come from the signed policy bundle alone.
    pub async fn wrap_for_recovery(
        &self,
        recipient: &RecoveryKey,
        context: &[u8],
        key: &Secret32,
    ) -> Result<RecoveryEntry, HsmError> {
        let (recipient, context, key) = (recipient.clone(), context.to_vec(), key.duplicate());
        self.call(move |session| session.wrap_for_recovery(&recipient, &context, &key)).await
    }

    /// Signs a message: ECDSA P-256 over its SHA-256, as `r ‖ s`, 32 bytes each. The signature is verified against the
    /// token's public key before it is returned.
    ///
    /// # Errors
    /// As [`Hsm::wrap`].
    pub async fn sign(&self, purpose: KeyPurpose, message: &[u8]) -> Result<[u8; 64], HsmError> {
        let digest = Sha256::digest(message).into();
        self.call(move |session| session.sign(purpose, &digest)).await
    }

    /// Random bytes from the token's generator, at most [`Hsm::MAX_RANDOM`].
    ///
    /// # Errors
    /// [`HsmError::TooMuchRandom`]; as [`Hsm::wrap`].
    pub async fn random(&self, count: usize) -> Result<Zeroizing<Vec<u8>>, HsmError> {
        if count > Self::MAX_RANDOM {
            return Err(HsmError::TooMuchRandom { asked: count, limit: Self::MAX_RANDOM });
        }
        self.call(move |session| session.random(count)).await
    }

    /// The audit anchor that counts, the one of the highest size; `None` when nothing was ever anchored. Objects of
    /// others on the token are passed over.
    ///
    /// # Errors
    /// [`HsmError::AnchorDamaged`] when there is an anchor that cannot be read; [`HsmError::AnchorsContradict`] when two
    /// of the highest size differ; as [`Hsm::wrap`].
    pub async fn anchor(&self) -> Result<Option<Anchor>, HsmError> {
        self.anchor_call(|session| session.anchors().latest()).await
    }

    /// Anchors a head of the audit log: writes it, reads it back, then destroys all earlier ones. When this returns, it
    /// is the only one on the token.
    ///
    /// `expected` is the anchor that the caller put or read last, `None` if there was none: if the token holds another one,
    /// somebody else writes anchors, and this call changes nothing. Of two that race from one anchor at most one succeeds.
    ///
    /// Repeating a call is fine and ends what an earlier try left undone. After an error, a time limit or a crash either the
    /// earlier anchor counts or this one, never neither.
    ///
    /// Anchor calls of one handle are made one at a time; those that wait for their turn hold no thread, and their time
    /// limit runs.
    ///
    /// # Errors
    /// [`HsmError::AnchorConflict`], [`HsmError::AnchorWouldShrink`], [`HsmError::AnchorForks`] and
    /// [`HsmError::AnchorOfAnotherLog`]: no repetition helps; [`HsmError::AnchorUnsupported`]; the errors of
    /// [`Hsm::anchor`].
    pub async fn put_anchor(&self, expected: Option<&Anchor>, anchor: &Anchor) -> Result<(), HsmError> {
        let (expected, anchor) = (expected.cloned(), anchor.clone());
        self.anchor_call(move |session| patiently(|| session.anchors().put(expected.as_ref(), &anchor))).await
    }

    /// Makes this the only audit anchor, whatever is there: higher ones, contradicting ones, damaged ones. It may be
    /// repeated; after a crash in between, the higher of both counts until it is.
    ///
    /// # Errors
    /// [`HsmError::AnchorUnsupported`]; as [`Hsm::wrap`].
    ///
    /// # Security
    /// This forgets what proves a rollback. Only the recovery that the policy quorum has signed over the old and the new
    /// log head may call it (FORMATS.md, "The audit log"); no restart and no operator alone.
    pub async fn replace_anchor(&self, anchor: &Anchor) -> Result<(), HsmError> {
        let anchor = anchor.clone();
        self.anchor_call(move |session| patiently(|| session.anchors().replace(&anchor))).await
    }

    /// The public key of a pair as SubjectPublicKeyInfo in DER, as checked at opening. It makes no call.
    pub fn public_key(&self, purpose: KeyPurpose) -> Vec<u8> {
        // Opening refuses a token on which one of the pairs is missing.
        self.shared.profile().public_key(purpose).unwrap_or_default()
    }

    /// The token, its keys and whether it can be used now. It makes no call.
    pub fn status(&self) -> HsmStatus {
        self.shared.profile().status(self.state())
    }

    /// Whether the token can be used now, and since when not. It makes no call.
    pub fn state(&self) -> HsmState {
        self.shared.state.now(self.shared.config.timeout)
    }

    /// For how long every thread has been inside a call that does not end, if that is longer than the time limit of a call.
    /// Nothing but a new process frees such threads. It makes no call.
    pub fn stuck(&self) -> Option<Duration> {
        self.shared.state.stuck(self.shared.config.timeout)
    }

    /// Refuses further calls, lets the threads end after the call that each is in, and joins them. The module is
    /// finalised with its last user. Doing this again is fine.
    ///
    /// # Errors
    /// [`HsmError::ThreadsStuck`] when threads are still inside the module after twice the time limit of a call.
    pub async fn shutdown(&self) -> Result<(), HsmError> {
        self.shared.close();
        let deadline = Deadline::of(&self.shared);
        while self.shared.join_ended() > 0 && !deadline.is_over() {
            tokio::time::sleep(Deadline::STEP).await;
        }
        deadline.verdict(self.shared.join_ended())
    }

    /// Waits for its turn, then makes the call. The turn ends with the call and not with the caller's patience, so
    /// that none runs beside one that has been given up.
    async fn anchor_call<T: Send + 'static>(
        &self,
        operation: impl Fn(&OpenSession) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let limit = self.shared.config.timeout;
        self.shared.state.admit(limit)?;
        let turn = Arc::clone(&self.shared.anchoring).lock_owned();
        let in_turn = async {
            let turn = turn.await;
            self.call(move |session| {
                let _held = &turn;
                operation(session)
            })
            .await
        };
        tokio::time::timeout(limit, in_turn).await.unwrap_or(Err(HsmError::Timeout { limit }))
    }

    async fn call<T: Send + 'static>(
        &self,
        operation: impl Fn(&OpenSession) -> Result<T, HsmError> + Send + 'static,
    ) -> Result<T, HsmError> {
        let limit = self.shared.config.timeout;
        self.shared.state.admit(limit)?;
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Call { operation, reply });
        self.shared.queue.push(call, |waiting| waiting.is_abandoned()).map_err(|why| match why {
            NotTaken::Full => HsmError::Busy,
            NotTaken::Closed => HsmError::Closed,
        })?;
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HsmError::Closed),
            Err(_) => Err(HsmError::Timeout { limit }),
        }
    }
}

/// SoftHSM sometimes stumbles over calls in other sessions while it writes an object, and says only that something went
/// wrong. Writing an anchor can be repeated, so that is tried before the token is given up for lost.
fn patiently<T>(operation: impl Fn() -> Result<T, HsmError>) -> Result<T, HsmError> {
    for pause in [2, 10, 40, 100].map(Duration::from_millis) {
        match operation() {
            Err(error) if error.is_unexplained() => std::thread::sleep(pause),
            settled => return settled,
        }
    }
    operation()
}

impl Drop for Hsm {
    fn drop(&mut self) {
        self.shared.close();
        let deadline = Deadline::of(&self.shared);
        while self.shared.join_ended() > 0 && !deadline.is_over() {
            std::thread::sleep(Deadline::STEP);
        }
        if let Err(error) = deadline.verdict(self.shared.join_ended()) {
            tracing::error!(event = "hsm_threads_stuck", %error);
        }
    }
}

impl fmt::Debug for Hsm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hsm").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// How long threads may take to end.
struct Deadline {
    began: Instant,
    limit: Duration,
}

impl Deadline {
    const STEP: Duration = Duration::from_millis(2);

    fn of(shared: &Shared) -> Self {
        Self { began: Instant::now(), limit: shared.config.timeout.saturating_mul(2) }
    }

    fn is_over(&self) -> bool {
        self.began.elapsed() > self.limit
    }

    fn verdict(&self, stuck: usize) -> Result<(), HsmError> {
        match stuck {
            0 => Ok(()),
            stuck => Err(HsmError::ThreadsStuck { stuck, limit: self.limit }),
        }
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, HsmError> {
    let thread = std::thread::Builder::new().name(name);
    thread.spawn(body).map_err(|_| HsmError::Thread("could not be started"))
}

fn open_and_watch(config: HsmConfig, report: oneshot::Sender<Result<Hsm, HsmError>>) {
    match open(config) {
        Ok(shared) => {
            let shared = Arc::new(shared);
            // When the opener has given up, the handle is dropped, which ends the watch before it begins.
            drop(report.send(Ok(Hsm { shared: Arc::clone(&shared) })));
            watch::run(&shared);
        }
        Err(error) => drop(report.send(Err(error))),
    }
}

fn open(config: HsmConfig) -> Result<Shared, HsmError> {
    let module = Module::load(&config.module)?;
    let learned = {
        let lease = module.enter();
        Profile::learn(&module, &lease, &config, None)?
    };
    tracing::info!(
        event = "hsm_open",
        token = learned.token.label,
        serial = learned.token.serial,
        wrap = learned.wrap.name(),
        kek_epoch = learned.live_epoch,
    );
    for key in learned.keys.iter().filter(|key| !key.mechanism_enforced) {
        tracing::warn!(event = "hsm_mechanism_not_enforced", key = key.id);
    }
    Ok(Shared::new(config, module, learned))
}
