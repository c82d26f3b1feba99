//! What is checked of certificates and lists before they are used. rustls checks what clients show; nobody else checks these.

use jiff::Timestamp;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{AlgorithmIdentifier, CertificateRevocationList, FromDer, X509Certificate};

use super::{Lifetime, What};

/// A DER object identifier's tag.
const OID: u8 = 6;

/// Certificates of one file, in its order.
pub(super) struct Certificates<'a>(Vec<X509Certificate<'a>>);

impl<'a> Certificates<'a> {
    /// Parses them.
    ///
    /// # Errors
    /// One is no certificate.
    pub(super) fn parse(all: &'a [CertificateDer<'_>]) -> Result<Self, String> {
        let parse = |der: &'a CertificateDer<'_>| match X509Certificate::from_der(der) {
            Ok(([], certificate)) => Ok(certificate),
            Ok(_) => Err("bytes follow a certificate".to_owned()),
            Err(error) => Err(format!("it holds something that is no certificate: {error}")),
        };
        all.iter().map(parse).collect::<Result<_, _>>().map(Self)
    }

    /// The first one.
    pub(super) fn first(&self) -> Option<&X509Certificate<'a>> {
        self.0.first()
    }

    /// How long they all hold.
    pub(super) fn lifetime(&self, what: What) -> Option<Lifetime> {
        let lifetimes = self.0.iter().map(|certificate| {
            let validity = certificate.validity();
            Lifetime::new(what, validity.not_before.timestamp(), validity.not_after.timestamp())
        });
        lifetimes.min_by_key(Lifetime::ends)
    }

    /// Checks a server's chain: each certificate holds now and is signed by the next; the last, if it names one of `cas`, by that. A chain
    /// to a CA that is not in the file of the clients' is not looked at beyond its last certificate.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_chain(
        &self,
        cas: &Self,
        algorithms: WebPkiSupportedAlgorithms,
        now: Timestamp,
    ) -> Result<(), String> {
        if let Some(first) = self.first() {
            let usage =
                first.extended_key_usage().map_err(|e| format!("its extended key usage is not readable: {e}"))?;
            if usage.is_some_and(|usage| !(usage.value.server_auth || usage.value.any)) {
                return Err("it is not for servers: ask the CA for one with extended key usage serverAuth".into());
            }
        }
        for (place, certificate) in self.0.iter().enumerate() {
            let name = certificate.subject();
            let (begins, ends) = (certificate.validity().not_before, certificate.validity().not_after);
            if begins.timestamp() > now.as_second() {
                return Err(format!("{name} is valid only from {begins} on; is the host's clock right?"));
            }
            if ends.timestamp() < now.as_second() {
                return Err(format!("{name} expired at {ends}; ask the CA for a new one"));
            }
            let issuers = match self.0.get(place.saturating_add(1)) {
                Some(next) if next.subject() != certificate.issuer() => {
                    let issuer = certificate.issuer();
                    return Err(format!(
                        "{name} is issued by {issuer}, and the next in the file is another: sort the chain"
                    ));
                }
                Some(next) => std::slice::from_ref(next),
                None => cas.0.as_slice(),
            };
            let signed = Signed {
                algorithm: &certificate.signature_algorithm,
                message: certificate.tbs_certificate.as_ref(),
                signature: &certificate.signature_value.data,
            };
            let mut named = issuers.iter().filter(|issuer| issuer.subject() == certificate.issuer()).peekable();
            if named.peek().is_some() && !named.any(|issuer| signed.verifies(issuer, algorithms)) {
                let issuer = certificate.issuer();
                return Err(format!("{name} names {issuer} as its issuer, whose key did not sign it"));
            }
        }
        Ok(())
    }
}

/// Checks lists of revoked certificates: each is signed by one of `cas` and holds now. Says how long they all hold.
///
/// # Errors
/// What is wrong with one.
pub(super) fn check_lists(
    lists: &[CertificateRevocationListDer<'_>],
    cas: &Certificates<'_>,
    algorithms: WebPkiSupportedAlgorithms,
    now: Timestamp,
) -> Result<Option<Lifetime>, String> {
    let lifetimes = lists.iter().map(|der| {
        let (rest, list) = CertificateRevocationList::from_der(der).map_err(|e| format!("it is no list: {e}"))?;
        if !rest.is_empty() {
            return Err("bytes follow the list".to_owned());
        }
        let issuer = list.issuer();
        let signed = Signed {
            algorithm: &list.signature_algorithm,
            message: list.tbs_cert_list.as_ref(),
            signature: &list.signature_value.data,
        };
        let mut named = cas.0.iter().filter(|ca| ca.subject() == issuer).peekable();
        if named.peek().is_none() {
            return Err(format!("it is issued by {issuer}, which is not in the file of the client CA"));
        }
        if !named.any(|ca| signed.verifies(ca, algorithms)) {
            return Err(format!("the key of {issuer} did not sign it; fetch it anew from the CA"));
        }
        let begins = list.last_update();
        let Some(ends) = list.next_update() else {
            return Err("it does not say when the next one comes; have the CA issue it with a next update".into());
        };
        if begins.timestamp() > now.as_second() {
            return Err(format!("it is of {begins}, which is still to come; is the host's clock right?"));
        }
        if ends.timestamp() <= now.as_second() {
            return Err(format!("it expired at {ends}; fetch the newest list from the CA"));
        }
        Ok(Lifetime::new(What::Crl, begins.timestamp(), ends.timestamp()))
    });
    let lifetimes = lifetimes.collect::<Result<Vec<_>, _>>()?;
    Ok(lifetimes.into_iter().min_by_key(Lifetime::ends))
}

/// Something that a CA has signed.
struct Signed<'a> {
    algorithm: &'a AlgorithmIdentifier<'a>,
    message: &'a [u8],
    signature: &'a [u8],
}

impl Signed<'_> {
    /// Whether `issuer` signed it, by an algorithm that rustls would take in a handshake too.
    fn verifies(&self, issuer: &X509Certificate<'_>, algorithms: WebPkiSupportedAlgorithms) -> bool {
        let oid = self.algorithm.algorithm.as_bytes();
        let named = [&[OID, u8::try_from(oid.len()).unwrap_or(u8::MAX)], oid].concat();
        let key = &issuer.public_key().subject_public_key.data;
        let mut usable = algorithms.all.iter().filter(|algorithm| algorithm.signature_alg_id().starts_with(&named));
        usable.any(|algorithm| algorithm.verify_signature(key, self.message, self.signature).is_ok())
    }
}
