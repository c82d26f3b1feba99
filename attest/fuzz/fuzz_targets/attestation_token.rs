//! See the crate's documentation.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = casemate_attest_fuzz::attestation_token(bytes);
});
