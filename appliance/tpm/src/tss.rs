//! The calls into tpm2-tss.
//!
//! The attestation key is a primary key of the endorsement hierarchy: a restricted signing key that the TPM makes anew from
//! its seed, always the same, also after it was cleared. Nothing is stored in the TPM, and the key can sign nothing that
//! the TPM did not make itself. Keys of other hierarchies would blur the counts of resets and the firmware's version in
//! what they sign (TPM 2.0 Library, part 3, TPM2_Quote).

use std::str::FromStr;

use casemate_attest::attestation::{AttestKey, Quote};
use casemate_wire::Digest32;
use p256::EncodedPoint;
use p256::elliptic_curve::sec1::FromEncodedPoint;
use p256::pkcs8::EncodePublicKey;
use tss_esapi::attributes::ObjectAttributesBuilder;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{
    Data, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, PcrSelectionList, PcrSlot, Public,
    PublicBuilder, PublicEccParametersBuilder, Signature, SignatureScheme, SymmetricDefinitionObject,
};
use tss_esapi::traits::Marshall;
use tss_esapi::{Context, TctiNameConf};

use crate::TpmError;

type Tried<T> = Result<T, TpmError>;

pub(crate) fn check_name(tcti: &str) -> Tried<()> {
    name(tcti).map(drop)
}

fn name(tcti: &str) -> Tried<TctiNameConf> {
    TctiNameConf::from_str(tcti).map_err(|_| TpmError::Name(tcti.to_owned()))
}

/// A quote over PCRs of the SHA-256 bank, and their values.
pub(crate) fn quote(tcti: &str, pcrs: &[u8], data: &[u8; 32]) -> Tried<Quote> {
    let mut context = Context::new(name(tcti)?).map_err(failed("be opened"))?;
    let made = context
        .execute_with_nullauth_session(|context| {
            context.create_primary(Hierarchy::Endorsement, template()?, None, None, None, None)
        })
        .map_err(failed("make its attestation key"))?;
    let quoted = with_key(&mut context, made.key_handle, &made.out_public, pcrs, data);
    // The handle is gone with the context; a resource manager frees it then, a bare TPM needs to be told.
    context.flush_context(made.key_handle.into()).map_err(failed("forget its attestation key"))?;
    quoted
}

fn with_key(context: &mut Context, key: KeyHandle, public: &Public, pcrs: &[u8], data: &[u8; 32]) -> Tried<Quote> {
    let making = failed("quote its PCRs");
    let slots = pcrs.iter().map(|index| slot(*index)).collect::<Tried<Vec<_>>>()?;
    let data = Data::try_from(data.to_vec()).map_err(&making)?;
    let selection = select(&slots).map_err(&making)?;
    let (attested, signature) = context
        .execute_with_nullauth_session(|context| context.quote(key, data, SignatureScheme::Null, selection))
        .map_err(&making)?;
    let values = slots.iter().map(|slot| read(context, *slot)).collect::<Tried<Vec<_>>>()?;
    Ok(Quote {
        ak: attestation_key(public)?,
        attested: attested.marshall().map_err(&making)?,
        signature: fixed(signature)?,
        pcrs: pcrs.iter().copied().zip(values).collect(),
    })
}

/// One PCR's value: a TPM gives eight at most in one answer, and one is simplest.
fn read(context: &mut Context, slot: PcrSlot) -> Tried<Digest32> {
    let reading = failed("read a PCR");
    let selection = select(&[slot]).map_err(&reading)?;
    let (_, _, values) = context.execute_without_session(|context| context.pcr_read(selection)).map_err(&reading)?;
    let value = values.value().first().and_then(|value| value.value().try_into().ok());
    value.map(Digest32).ok_or_else(|| odd("read a PCR", "it has no SHA-256 bank"))
}

fn select(slots: &[PcrSlot]) -> tss_esapi::Result<PcrSelectionList> {
    PcrSelectionList::builder().with_selection(HashingAlgorithm::Sha256, slots).build()
}

/// A slot is a bit of the selection.
fn slot(index: u8) -> Tried<PcrSlot> {
    1_u32.checked_shl(index.into()).and_then(|bit| PcrSlot::try_from(bit).ok()).ok_or(TpmError::Pcrs)
}

/// ECDSA P-256 with SHA-256, restricted: it signs only what the TPM itself made.
fn template() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_sign_encrypt(true)
        .with_restricted(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new()
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_ecc_scheme(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_is_signing_key(true)
        .with_restricted(true)
        .build()?;
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn attestation_key(public: &Public) -> Tried<AttestKey> {
    let doing = "make its attestation key";
    let Public::Ecc { unique, .. } = public else { return Err(odd(doing, "it made another kind of key")) };
    let x = padded(unique.x().value()).ok_or_else(|| odd(doing, "x is too long"))?;
    let y = padded(unique.y().value()).ok_or_else(|| odd(doing, "y is too long"))?;
    let point = EncodedPoint::from_affine_coordinates(&x.into(), &y.into(), false);
    let key = Option::<p256::PublicKey>::from(p256::PublicKey::from_encoded_point(&point));
    let spki = key.and_then(|key| key.to_public_key_der().ok()).ok_or_else(|| odd(doing, "it is not on P-256"))?;
    AttestKey::from_spki(spki.as_bytes()).map_err(|error| odd(doing, &error.to_string()))
}

/// `r ‖ s`, each 32 bytes.
fn fixed(signature: Signature) -> Tried<[u8; 64]> {
    let doing = "quote its PCRs";
    let Signature::EcDsa(signature) = signature else { return Err(odd(doing, "its signature is not ECDSA")) };
    let r = padded(signature.signature_r().value()).ok_or_else(|| odd(doing, "r is too long"))?;
    let s = padded(signature.signature_s().value()).ok_or_else(|| odd(doing, "s is too long"))?;
    let mut both = [0; 64];
    both.iter_mut().zip(r.iter().chain(&s)).for_each(|(to, from)| *to = *from);
    Ok(both)
}

/// A TPM may leave leading zeros out.
fn padded(number: &[u8]) -> Option<[u8; 32]> {
    let missing = 32_usize.checked_sub(number.len())?;
    let mut bytes = [0; 32];
    bytes.iter_mut().skip(missing).zip(number).for_each(|(to, from)| *to = *from);
    Some(bytes)
}

fn failed(doing: &'static str) -> impl Fn(tss_esapi::Error) -> TpmError {
    move |error| TpmError::Failed { doing, why: error.to_string() }
}

fn odd(doing: &'static str, why: &str) -> TpmError {
    TpmError::Failed { doing, why: why.to_owned() }
}
