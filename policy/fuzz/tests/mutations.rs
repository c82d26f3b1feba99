//! The fuzz targets over seeds and a few thousand mutations of each: the same on every run, and without libFuzzer.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use casemate_policy_fuzz::{self as targets, Outcome};

/// Mutations of each seed.
const MUTATIONS: u64 = 1500;

/// EIP-155's example; 1.5 USDC with 5 wei; a batch of ERC-1155; a type-4 transaction with two authorizations.
const ETHEREUM: &[&str] = &[
    "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080",
    "02f86d010a843b9aca008504a817c80082fde894a0b86991c6218b36c1d19d4a2e9eb0ce3606eb4805b844a9059cbb\
     0000000000000000000000003535353535353535353535353535353535353535\
     000000000000000000000000000000000000000000000000000000000016e360c0",
    "02f901a3018080808094353535353535353535353535353535353535353580b901842eb2c2d60000000000000000000000000101010101\
     01010101010101010101010101010100000000000000000000000035353535353535353535353535353535353535350000000000000000\
     0000000000000000000000000000000000000000000000a000000000000000000000000000000000000000000000000000000000000001\
     00000000000000000000000000000000000000000000000000000000000000016000000000000000000000000000000000000000000000\
     00000000000000000002000000000000000000000000000000000000000000000000000000000000000700000000000000000000000000\
     00000000000000000000000000000000000008000000000000000000000000000000000000000000000000000000000000000200000000\
     00000000000000000000000000000000000000000000000000000001000000000000000000000000000000000000000000000000000000\
     00000000010000000000000000000000000000000000000000000000000000000000000000c0",
    "04f85401808080809435353535353535353535353535353535353535358080c0f6da0194dedededededededededededededededededede\
     de04800101da8094dededededededededededededededededededede04800101",
];

const TYPED_DATA: &str = r#"{"types":{"EIP712Domain":[{"name":"name","type":"string"},{"name":"chainId","type":"uint256"},
{"name":"verifyingContract","type":"address"}],"PermitBatch":[{"name":"details","type":"PermitDetails[]"},
{"name":"spender","type":"address"},{"name":"sigDeadline","type":"uint256"}],"PermitDetails":[
{"name":"token","type":"address"},{"name":"amount","type":"uint160"},{"name":"expiration","type":"uint48"},
{"name":"nonce","type":"uint48"}]},"primaryType":"PermitBatch","domain":{"name":"Permit2","chainId":1,
"verifyingContract":"0x000000000022d473030f116ddee9f6b43ac78ba3"},"message":{"details":[
{"token":"0x1111111111111111111111111111111111111111","amount":"7","expiration":1,"nonce":0}],
"spender":"0x2222222222222222222222222222222222222222","sigDeadline":"0xff"}}"#;

/// A P2WPKH input of the targets' key, an output to a stranger, and change.
const PSBT: &str = "cHNidP8BAHECAAAAAcghi434p+RLe3AnT/7thntf1V63wYLKpLA9EweNKPHsAQAAAAD/////AmDqAAAA\
    AAAAFgAU0MWZA8W6woaHYOkP1SGkZlqnZSBYmAAAAAAAABYAFL0WvuU5YaR9atiI4pVFQ0qJvf6VAAAAAAABAHECAAAAAQAAAAAAAAAAAAAAAA\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAD/////AgEAAAAAAAAAFgAU0MWZA8W6woaHYOkP1SGkZlqnZSCghgEAAAAAABYAFL0WvuU5YaR9atiI\
    4pVFQ0qJvf6VAAAAAAAAAA==";

/// Options, comments, and a FIDO key.
const OPTIONS: &str = "# who may sign
carol@acme namespaces=\"casemate-policy,casemate-approval\",valid-after=\"20260101Z\",valid-before=\"203001010000Z\" \
sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIDMF8wnFP6N9DyK2pawFNpdhqGpK5zU3vC1gzzRo79CwAAAABHNzaDo= carol's key

";

/// Alice's (Ed25519) and Bob's (P-256) signatures over what the target expects.
const SIGNATURES: [&str; 2] = [
    "\
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAADMAAAALc3NoLWVkMjU1MTkAAAAgMwXzCcU/o30PIralrAU2l2Goak
rnNTe8LWDPNGjv0LAAAAARY2FzZW1hdGUtYXBwcm92YWwAAAAAAAAABnNoYTUxMgAAAFMA
AAALc3NoLWVkMjU1MTkAAABA/v9vjpgSNkvy8EEI3gMgGqlC0S2FhOY3sPgMq76J8vfQAO
SJhHFnHWa6hsPdZcnS5HuE3Vqpq9iPSBR8raIoAw==
-----END SSH SIGNATURE-----
",
    "\
-----BEGIN SSH SIGNATURE-----
U1NIU0lHAAAAAQAAAGgAAAATZWNkc2Etc2hhMi1uaXN0cDI1NgAAAAhuaXN0cDI1NgAAAE
EE75o61z71kmvKDEdqTcOMOUL3fpXEmsaAEFmzcss3SRD7mDvEDrWcM9umwadeB3WpGCOo
57oNJ4vqiQd1iK7KsgAAABFjYXNlbWF0ZS1hcHByb3ZhbAAAAAAAAAAGc2hhNTEyAAAAZQ
AAABNlY2RzYS1zaGEyLW5pc3RwMjU2AAAASgAAACEAk3iCx3SIm7UasQ2A6TqcraCJSCpe
T3b/30wLYnV3PPwAAAAhALm0LIHNOwg4BnNF5s82vmDGp4JoVUf+O9A06nb3Davd
-----END SSH SIGNATURE-----
",
];

/// The identity key of a participant, stated as `IDENTITY` below.
const IDENTITY: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004ef9a3ad73ef5926bca0c476a4dc38c3942f7\
    7e95c49ac6801059b372cb374910fb983bc40eb59c33dba6c1a75e0775a91823a8e7ba0d278bea89077588aecab2";

/// One statement of each action.
const STATEMENTS: [&str; 5] = [
    r#"{"v":1,"action":"sign","key":"0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798","parameters":
{"message_hash":"0101010101010101010101010101010101010101010101010101010101010101","derivation_path":"m/0/1"},
"bundle":"0505050505050505050505050505050505050505050505050505050505050505","expires":"2026-11-21T12:00:00Z",
"nonce":"00112233445566778899aabbccddeeff"}"#,
    r#"{"v":1,"action":"keygen","slot":{"share_type":"wallet","threshold_t":2,"threshold_n":3,"label":"hot"},"parameters":
{"participants":[{"party_id":"party-1","identity":"IDENTITY"}]},
"bundle":"0505050505050505050505050505050505050505050505050505050505050505","expires":"2026-11-21T12:00:00Z",
"nonce":"00112233445566778899aabbccddeeff"}"#,
    r#"{"v":1,"action":"rotate","key":"0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798","parameters":
{"participants":[{"party_id":"party-1","identity":"IDENTITY"}],"threshold_t":2,"epoch":2,"from_epoch":1,"auxiliary":"fresh"},
"bundle":"0505050505050505050505050505050505050505050505050505050505050505","expires":"2026-11-21T12:00:00Z",
"nonce":"00112233445566778899aabbccddeeff"}"#,
    r#"{"v":1,"action":"revoke","key":"0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798","parameters":
{"party_id":"party-1","reason":"lost"},
"bundle":"0505050505050505050505050505050505050505050505050505050505050505","expires":"2026-11-21T12:00:00Z",
"nonce":"00112233445566778899aabbccddeeff"}"#,
    r#"{"v":1,"action":"backup","parameters":{"party_id":"party-1","recipients":["age1x"]},
"bundle":"0505050505050505050505050505050505050505050505050505050505050505","expires":"2026-11-21T12:00:00Z",
"nonce":"00112233445566778899aabbccddeeff"}"#,
];

/// A generator of numbers that is the same everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap();
        number % below.max(1)
    }

    fn byte(&mut self) -> u8 {
        const TELLING: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xff, b'"', b'[', b'0'];
        if self.next(2) == 0 { TELLING[self.next(TELLING.len())] } else { u8::try_from(self.next(256)).unwrap() }
    }
}

/// Changes, cuts, prolongs or repeats a part, up to four times.
fn mutate(seed: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=numbers.next(4) {
        let at = numbers.next(bytes.len());
        match numbers.next(5) {
            0 if !bytes.is_empty() => bytes[at] = numbers.byte(),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.insert(at, numbers.byte()),
            3 => bytes.truncate(at),
            _ => {
                let end = (at + numbers.next(40)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

fn run(target: fn(&[u8]) -> Outcome, seeds: &[Vec<u8>]) {
    let _ = target(&[]);
    for (seed, start) in seeds.iter().zip(1u64..) {
        assert_eq!(target(seed), Outcome::Decoded, "seed {start}");
        let mut numbers = Numbers(start.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for _ in 0..MUTATIONS {
            let _ = target(&mutate(seed, &mut numbers));
        }
    }
}

#[test]
fn ethereum_transactions_keep_their_promises() {
    let seeds: Vec<Vec<u8>> = ETHEREUM.iter().map(|seed| hex::decode(seed).unwrap()).collect();
    run(targets::ethereum, &seeds);
}

#[test]
fn messages_keep_their_promises() {
    run(targets::eip191, &[b"hello world".to_vec(), vec![0xff; 100], b"0x00".to_vec()]);
}

#[test]
fn typed_data_keeps_its_promises() {
    run(targets::eip712, &[TYPED_DATA.into()]);
}

#[test]
fn bitcoin_transactions_keep_their_promises() {
    let psbt = STANDARD.decode(PSBT).unwrap();
    run(targets::bitcoin_psbt, &[[&[0], psbt.as_slice()].concat()]);
}

#[test]
fn files_of_signers_keep_their_promises() {
    run(targets::allowed_signers, &[targets::SIGNERS.into(), OPTIONS.into()]);
}

#[test]
fn signatures_keep_their_promises() {
    run(targets::sshsig, &SIGNATURES.map(Vec::from));
}

#[test]
fn approval_statements_keep_their_promises() {
    run(targets::approval_statement, &STATEMENTS.map(|seed| seed.replace("IDENTITY", IDENTITY).into_bytes()));
}
