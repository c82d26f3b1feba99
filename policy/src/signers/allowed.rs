//! `allowed_signers` files in OpenSSH's own format (ssh-keygen(1), "ALLOWED SIGNERS"), read more strictly than OpenSSH does.
//!
//! ```text
//! # who         options                                              key
//! alice@acme    namespaces="casemate-policy",valid-before="20270101Z" ssh-ed25519 AAAA… alice's laptop
//! bob@globex    sk-ssh-ed25519@openssh.com AAAA… bob's FIDO key
//! ```
//!
//! A principal is `name@org`. Patterns, lists of principals and certificate authorities are refused, since nobody could
//! count the people behind them; so is one key under two names. Times need their `Z`, as the host's zone must not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{EcdsaCurve, HashAlg, PublicKey};

use super::Namespace;

/// The largest file, in bytes.
pub const MAX_ALLOWED_SIGNERS: usize = 256 * 1024;
/// The most keys in one file.
const MAX_KEYS: usize = 1024;
/// What the application of a FIDO key must begin with (OpenSSH's PROTOCOL.u2f): a key for web sites signs no policy.
const SK_APPLICATION: &str = "ssh:";

/// A person: `name@org`, in lower case. Two principals are two people.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(into = "String")]
pub struct Principal {
    whole: String,
    org: String,
}

impl Principal {
    /// The whole principal, `name@org`: what policies see in `approvals.names`, so that equal first names of two
    /// organisations stay apart.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// The organisation: what follows the `@`.
    pub fn org(&self) -> &str {
        &self.org
    }
}

impl From<Principal> for String {
    fn from(principal: Principal) -> Self {
        principal.whole
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole)
    }
}

/// Why a text is no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the principal {text:?} is refused: {why}")]
pub struct InvalidPrincipal {
    text: String,
    why: &'static str,
}

impl FromStr for Principal {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let refused = |why| Err(InvalidPrincipal { text: text.chars().take(130).collect(), why });
        if text.contains(['*', '?', '!']) {
            return refused("a pattern stands for people that nobody can count; write one line for each person's key");
        }
        if text.contains(',') {
            return refused("a list of principals would give one key to several people; each needs a key of their own");
        }
        let Some((name, org)) = text.split_once('@') else {
            return refused("write `name@org`: approvals count people and organisations");
        };
        for part in [name, org] {
            let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+');
            if part.is_empty() || part.len() > 64 || !part.chars().all(fits) {
                return refused(
                    "name and org take 1 to 64 of `a-z 0-9 . _ - +`, in lower case, so that no two people look alike",
                );
            }
        }
        Ok(Self { whole: text.to_owned(), org: org.to_owned() })
    }
}

/// Why an `allowed_signers` file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allowed_signers, line {line}: {why}")]
pub struct AllowedSignersError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub why: String,
}

/// One line: whose key, for what, and when.
#[derive(Debug, Clone)]
pub struct AllowedKey {
    principal: Principal,
    key: KeyData,
    options: Options,
}

impl AllowedKey {
    /// Whose key it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Whether the line allows this use. A line that names no namespaces allows all.
    pub fn is_for(&self, namespace: Namespace) -> bool {
        self.options.namespaces.as_ref().is_none_or(|names| names.contains(namespace.as_str()))
    }

    /// From when on it is valid, if the line says so.
    pub fn valid_after(&self) -> Option<Timestamp> {
        self.options.valid_after
    }

    /// Until when it is valid, that second included, if the line says so.
    pub fn valid_before(&self) -> Option<Timestamp> {
        self.options.valid_before
    }

    pub(super) fn key(&self) -> &KeyData {
        &self.key
    }
}

/// The people whose signatures count, with their keys.
#[derive(Debug, Clone, Default)]
pub struct AllowedSigners {
    keys: Vec<AllowedKey>,
}

impl AllowedSigners {
    /// Reads a whole file. An empty one allows nobody.
    ///
    /// # Errors
    /// [`AllowedSignersError`] names the first line that is refused, and why.
    pub fn parse(text: &str) -> Result<Self, AllowedSignersError> {
        if text.len() > MAX_ALLOWED_SIGNERS {
            let why = format!("the file has more than {MAX_ALLOWED_SIGNERS} bytes");
            return Err(AllowedSignersError { line: 1, why });
        }
        let mut keys = Vec::new();
        let mut lines: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let refused = |why| AllowedSignersError { line: number, why };
            let line = line.trim_matches([' ', '\t']);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let allowed = parse_line(line).map_err(refused)?;
            if let Some(earlier) = lines.insert(point(&allowed.key), number) {
                let why = format!("the key stands on line {earlier} already; each person needs a key of their own");
                return Err(refused(why));
            }
            keys.push(allowed);
            if keys.len() > MAX_KEYS {
                return Err(refused(format!("the file has more than {MAX_KEYS} keys")));
            }
        }
        Ok(Self { keys })
    }

    /// The distinct people with a key for this use, whether it is valid by now or not.
    pub fn principals(&self, namespace: Namespace) -> BTreeSet<&Principal> {
        self.keys.iter().filter(|key| key.is_for(namespace)).map(AllowedKey::principal).collect()
    }

    /// Every line's key, in the file's order.
    pub fn keys(&self) -> impl Iterator<Item = &AllowedKey> {
        self.keys.iter()
    }

    pub(super) fn find(&self, key: &KeyData) -> Option<&AllowedKey> {
        self.keys.iter().find(|allowed| allowed.key == *key)
    }
}

/// A line's options.
#[derive(Debug, Clone, Default)]
struct Options {
    namespaces: Option<BTreeSet<String>>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

fn parse_line(line: &str) -> Result<AllowedKey, String> {
    let (principal, rest) = next_field(line)?;
    let principal: Principal = principal.parse().map_err(|error: InvalidPrincipal| error.to_string())?;
    let (field, after) = next_field(rest)?;
    if field.is_empty() {
        return Err("no key follows the principal".into());
    }
    let (options, key) = if is_key_type(field) { (Options::default(), rest) } else { (Options::parse(field)?, after) };
    let key = PublicKey::from_openssh(&without_comment(key))
        .map_err(|error| format!("the key cannot be read ({error}); copy the whole line of the `.pub` file"))?;
    let key = KeyData::from(key);
    check_key(&key)?;
    Ok(AllowedKey { principal, key, options })
}

/// The next field, up to a blank outside double quotes, and what follows it.
fn next_field(text: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    let end = text.find(|c: char| {
        quoted ^= c == '"';
        !quoted && matches!(c, ' ' | '\t')
    });
    if end.is_none() && quoted {
        return Err("a double quote is never closed".into());
    }
    let (field, rest) = text.split_at(end.unwrap_or(text.len()));
    Ok((field, rest.trim_start_matches([' ', '\t'])))
}

/// Whether a field is the type of a key, as no option is.
fn is_key_type(field: &str) -> bool {
    ["ssh-", "sk-", "ecdsa-", "rsa-", "webauthn-"].iter().any(|start| field.starts_with(start))
}

/// Type and base64 alone: comments are free text, which the key's parser need not see.
fn without_comment(key: &str) -> String {
    key.split([' ', '\t']).filter(|field| !field.is_empty()).take(2).collect::<Vec<_>>().join(" ")
}

fn check_key(key: &KeyData) -> Result<(), String> {
    let application = match key {
        KeyData::Ed25519(point) => return check_point(point),
        KeyData::Ecdsa(ecdsa) if matches!(ecdsa.curve(), EcdsaCurve::NistP256 | EcdsaCurve::NistP384) => return Ok(()),
        KeyData::SkEd25519(sk) => {
            check_point(sk.public_key())?;
            sk.application()
        }
        KeyData::SkEcdsaSha2NistP256(sk) => sk.application(),
        KeyData::Rsa(_) | KeyData::Dsa(_) => {
            return Err(
                "RSA and DSA keys are not taken; make one with `ssh-keygen -t ed25519` or `-t ed25519-sk`".into()
            );
        }
        _ => {
            let algorithm = key.algorithm();
            return Err(format!(
                "keys of type {algorithm} are not taken; use ssh-ed25519, ecdsa-sha2-nistp256, ecdsa-sha2-nistp384, \
                 sk-ssh-ed25519@openssh.com or sk-ecdsa-sha2-nistp256@openssh.com"
            ));
        }
    };
    if !application.starts_with(SK_APPLICATION) {
        return Err(format!(
            "the FIDO key is for {application:?}, not for `{SK_APPLICATION}`; make one with ssh-keygen"
        ));
    }
    Ok(())
}

/// Anyone can sign for a point of small order.
fn check_point(key: &ssh_key::public::Ed25519PublicKey) -> Result<(), String> {
    match ed25519_dalek::VerifyingKey::from_bytes(&key.0) {
        Ok(point) if !point.is_weak() => Ok(()),
        _ => Err("the Ed25519 key is not a point that can be trusted; make a new one".into()),
    }
}

/// The bare key inside: one key under two applications or types is still one key.
fn point(key: &KeyData) -> Vec<u8> {
    match key {
        KeyData::Ed25519(key) => key.0.to_vec(),
        KeyData::SkEd25519(sk) => sk.public_key().0.to_vec(),
        KeyData::SkEcdsaSha2NistP256(sk) => sk.ec_point().as_bytes().to_vec(),
        KeyData::Ecdsa(key) => key.as_sec1_bytes().to_vec(),
        other => other.fingerprint(HashAlg::Sha256).as_bytes().to_vec(),
    }
}

impl Options {
    fn parse(field: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = field;
        while !rest.is_empty() {
            let (option, after) = next_option(rest);
            options.take(option)?;
            rest = after;
        }
        match (options.valid_after, options.valid_before) {
            (Some(after), Some(before)) if before <= after => {
                Err("`valid-before` is not later than `valid-after`, so the key would never be valid".into())
            }
            _ => Ok(options),
        }
    }

    fn take(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let name = name.to_ascii_lowercase();
        let again = || format!("the option `{name}` stands twice");
        match (name.as_str(), value) {
            ("cert-authority", _) => {
                Err("a `cert-authority` line lets others name signers; list each person's own key".into())
            }
            ("namespaces", Some(value)) => set(&mut self.namespaces, namespaces(unquoted(value)?)?).ok_or_else(again),
            ("valid-after", Some(value)) => set(&mut self.valid_after, time(unquoted(value)?)?).ok_or_else(again),
            ("valid-before", Some(value)) => set(&mut self.valid_before, time(unquoted(value)?)?).ok_or_else(again),
            _ => Err(format!(
                "{:?} is neither an option (`namespaces`, `valid-after`, `valid-before`) nor the type of a key",
                option.chars().take(64).collect::<String>()
            )),
        }
    }
}

/// Fills an empty place; nothing if it is taken.
fn set<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// The next option, up to a comma outside double quotes, and what follows it.
fn next_option(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let comma = text.find(|c: char| {
        quoted ^= c == '"';
        !quoted && c == ','
    });
    comma.and_then(|at| Some((text.get(..at)?, text.get(at.saturating_add(1)..)?))).unwrap_or((text, ""))
}

fn unquoted(value: &str) -> Result<&str, String> {
    value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .filter(|value| !value.is_empty() && !value.contains('"'))
        .ok_or_else(|| "the value of an option stands in double quotes".into())
}

fn namespaces(list: &str) -> Result<BTreeSet<String>, String> {
    if list.contains(['*', '?', '!']) {
        return Err("`namespaces` takes names, not patterns".into());
    }
    Ok(list.split(',').map(str::to_owned).collect())
}

/// `YYYYMMDD`, `YYYYMMDDHHMM` or `YYYYMMDDHHMMSS`, followed by `Z`.
fn time(text: &str) -> Result<Timestamp, String> {
    let refused =
        || format!("the time {text:?} is not YYYYMMDD[HHMM[SS]]Z; without `Z` it would depend on the host's zone");
    let digits = text.strip_suffix(['Z', 'z']).ok_or_else(refused)?;
    if !matches!(digits.len(), 8 | 12 | 14) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let padded = format!("{digits:0<14}");
    let civil = DateTime::strptime("%Y%m%d%H%M%S", &padded).map_err(|_| refused())?;
    civil.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).map_err(|_| refused())
}
