//! Against a software TPM: a quote that a TPM made is one that our verifier accepts, and what it binds is bound.
#![cfg(feature = "tss")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use casemate_attest::attestation::{AttestKey, Nonce, Nonces, Quote, QuoteError};
use casemate_tpm::{Tpm, TpmError};
use p256::pkcs8::EncodePublicKey;
use tempfile::TempDir;

/// A TPM of its own for one test; it ends with the test.
struct SoftTpm {
    process: Child,
    port: u16,
    state: TempDir,
}

impl SoftTpm {
    fn start() -> Self {
        Self::on(tempfile::tempdir().unwrap())
    }

    fn on(state: TempDir) -> Self {
        // swtpm takes the control channel at the port after the data channel's, as libtss2-tcti-swtpm expects it.
        let port = (0..100).find_map(|_| {
            let port = TcpListener::bind("127.0.0.1:0").ok()?.local_addr().ok()?.port();
            TcpListener::bind(("127.0.0.1", port.checked_add(1)?)).ok().map(|_| port)
        });
        let port = port.unwrap();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={}", state.path().display()))
            .arg("--server")
            .arg(format!("type=tcp,port={port},disconnect=false"))
            .arg("--ctrl")
            .arg(format!("type=tcp,port={}", port + 1))
            .stdout(Stdio::null())
            .spawn()
            .expect("swtpm is missing: apt-get install swtpm");
        let tpm = Self { process, port, state };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port + 1)).is_err() {
            assert!(Instant::now() < deadline, "swtpm does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        tpm
    }

    fn open(&self, pcrs: &[u8]) -> Tpm {
        Tpm::new(&format!("swtpm:host=127.0.0.1,port={}", self.port), pcrs).unwrap()
    }

    /// Starts the same TPM anew, as a reboot of its host does.
    fn restarted(mut self) -> Self {
        self.end();
        let state = std::mem::replace(&mut self.state, tempfile::tempdir().unwrap());
        Self::on(state)
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        self.end();
    }
}

fn key(seed: u8) -> AttestKey {
    let key = p256::SecretKey::from_slice(&[seed; 32]).unwrap().public_key();
    AttestKey::from_spki(key.to_public_key_der().unwrap().as_bytes()).unwrap()
}

fn nonces(bytes: &[u8]) -> Nonces {
    Nonces::new(bytes.iter().map(|byte| Nonce::new(vec![*byte; 32]).unwrap()).collect()).unwrap()
}

#[test]
fn a_tpms_quote_verifies_for_its_nonces_and_its_attest_key_alone() {
    let tpm = SoftTpm::start();
    let (asked, other) = (nonces(&[1, 2]), nonces(&[2, 1]));
    let quote = tpm.open(&[7, 0, 1, 2, 3, 4]).quote(&asked, &key(1)).unwrap();
    let info = quote.verify(&asked, &key(1)).unwrap();
    assert!(info.firmware != 0);
    assert_eq!(quote.pcrs.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 7]);
    assert_eq!(quote.verify(&other, &key(1)), Err(QuoteError::OtherNonce));
    assert_eq!(quote.verify(&asked, &key(2)), Err(QuoteError::OtherNonce));
    let mut lying = quote.clone();
    lying.pcrs.first_mut().unwrap().1.0 = [9; 32];
    assert_eq!(lying.verify(&asked, &key(1)), Err(QuoteError::OtherValues));
    assert_eq!(Quote { signature: [7; 64], ..quote }.verify(&asked, &key(1)), Err(QuoteError::Signature));
}

#[test]
fn all_pcrs_can_be_quoted_and_the_key_stays_the_same_over_calls_and_restarts() {
    let all: Vec<u8> = (0..24).collect();
    let tpm = SoftTpm::start();
    let first = tpm.open(&all).quote(&nonces(&[1]), &key(1)).unwrap();
    // More often than a TPM has places for keys: each call forgets its own.
    for byte in 2..8 {
        assert_eq!(tpm.open(&[0]).quote(&nonces(&[byte]), &key(1)).unwrap().ak, first.ak);
    }
    let again = tpm.restarted().open(&all).quote(&nonces(&[1]), &key(1)).unwrap();
    assert_eq!(again.ak, first.ak);
    let resets = |quote: &Quote| quote.verify(&nonces(&[1]), &key(1)).unwrap().resets;
    assert_eq!(resets(&again), resets(&first) + 1, "a restart of the host shows");
    let other = SoftTpm::start().open(&all).quote(&nonces(&[1]), &key(1)).unwrap();
    assert_ne!(other.ak, first.ak);
}

#[test]
fn a_tpm_that_is_not_there_is_named() {
    let tpm = Tpm::new("device:/dev/no-such-tpm", &[0]).unwrap();
    assert!(matches!(tpm.quote(&nonces(&[1]), &key(1)), Err(TpmError::Failed { doing: "be opened", .. })));
}
