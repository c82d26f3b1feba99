//! The pieces of a backup's key: split among custodians, each piece encrypted to one of them; and put together again.
//!
//! A custodian who will not hand an identity over opens their piece themselves and encrypts it anew, to whoever restores:
//! [`Keyring::piece_for`].

use std::collections::BTreeMap;
use std::iter;

use age::x25519::{Identity, Recipient};
use casemate_hsm::Secret32;
use casemate_policy::bundle::Recipients;
use casemate_wire::Digest32;
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use vsss_rs::Gf256;
use zeroize::{Zeroize, Zeroizing};

use super::format::{Backup, BackupId, Custodian, decoded, encoded};

/// The one value of a piece's `format`.
const FORMAT: &str = "casemate/backup-piece/v1";
/// The largest encrypted piece that is looked at, in bytes.
pub const MAX_PIECE: usize = 4096;

/// Why the pieces do not open a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CustodyError {
    /// The bundle names nobody to whom a backup could go.
    #[error("the signed policy bundle names no custodians, so nobody could open a backup: add recipients.toml to it")]
    NoCustodians,
    /// A recipient or its piece cannot be used.
    #[error("the piece of {who} {why}")]
    Piece {
        /// The custodian, or the file.
        who: String,
        /// What is wrong.
        why: String,
    },
    /// An identity file is none.
    #[error("{name} is not an age identity file (AGE-SECRET-KEY-1…, X25519): {why}")]
    NotAnIdentity {
        /// The file.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An identity that opens nothing here.
    #[error("{name} is of none of this backup's custodians ({custodians}) and opens none of the given pieces")]
    WrongCustodian {
        /// The file.
        name: String,
        /// Who they are.
        custodians: String,
    },
    /// The same piece again.
    #[error("the piece of {0} is given twice, and counts once: each piece comes from another custodian")]
    Twice(String),
    /// Not enough.
    #[error("{given} of {needed} needed pieces are given ({names}): bring more custodians of {custodians}")]
    TooFew {
        /// How many pieces.
        given: usize,
        /// How many it takes.
        needed: u8,
        /// Whose they are.
        names: String,
        /// Who the custodians are.
        custodians: String,
    },
    /// Good pieces that give another key.
    #[error("the pieces do not give the key of this backup; use another copy of the file")]
    NotItsKey,
    /// The splitting failed.
    #[error("the backup key cannot be split: {0}")]
    Split(String),
}

/// A piece in the clear.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Piece {
    format: String,
    backup: BackupId,
    custodian: String,
    point: ByteBuf,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.point.zeroize();
    }
}

/// Splits a key among the custodians of a signed bundle: what the head says of them, and each one's age file.
pub(super) fn split(
    key: &Secret32,
    id: &BackupId,
    recipients: &Recipients,
) -> Result<(u8, Vec<Custodian>, Vec<ByteBuf>), CustodyError> {
    let threshold = recipients.threshold().ok_or(CustodyError::NoCustodians)?;
    let people = recipients.custodians();
    let shares = split_key(key, threshold, people.len())?;
    let mut custodians = Vec::with_capacity(people.len());
    let mut pieces = Vec::with_capacity(people.len());
    for ((name, recipient), mut share) in people.iter().zip(shares) {
        let failed = |why: String| CustodyError::Piece { who: name.clone(), why };
        let piece = Piece {
            format: FORMAT.into(),
            backup: id.clone(),
            custodian: name.clone(),
            point: ByteBuf::from(std::mem::take(&mut *share)),
        };
        let plain = Zeroizing::new(encoded(&piece).map_err(|e| failed(e.to_string()))?);
        let recipient = recipient.as_str().to_owned();
        pieces.push(ByteBuf::from(encrypt(&recipient, &plain).map_err(failed)?));
        custodians.push(Custodian { name: name.clone(), recipient, piece: crate::digest(&plain) });
    }
    Ok((threshold, custodians, pieces))
}

fn split_key(key: &Secret32, threshold: u8, count: usize) -> Result<Vec<Zeroizing<Vec<u8>>>, CustodyError> {
    // Without randomness from the operating system it panics, as every generator of this process does.
    let split = Gf256::split_bytes(usize::from(threshold), count, key.expose(), UnwrapErr(SysRng));
    let split = split.map_err(|error| CustodyError::Split(error.to_string()))?;
    Ok(split.into_iter().map(Zeroizing::new).collect())
}

fn encrypt(recipient: &str, plain: &[u8]) -> Result<Vec<u8>, String> {
    let recipient: Recipient = recipient.parse().map_err(|why| format!("cannot be encrypted to {recipient}: {why}"))?;
    age::encrypt(&recipient, plain).map_err(|why| format!("cannot be encrypted: {why}"))
}

/// Identities and pieces that people have brought.
#[derive(Default)]
pub struct Keyring {
    /// By the name of their file; a file may hold several.
    identities: Vec<(String, Vec<Identity>)>,
    /// Pieces that custodians encrypted anew, by the name of their file.
    pieces: Vec<(String, Vec<u8>)>,
}

impl Keyring {
    /// Takes an age identity file: one `AGE-SECRET-KEY-1…` a line, `#` begins a comment.
    ///
    /// # Errors
    /// [`CustodyError::NotAnIdentity`]; nothing of the file is repeated.
    pub fn identity(&mut self, name: &str, file: &str) -> Result<(), CustodyError> {
        let wrong = |why: &str| CustodyError::NotAnIdentity { name: name.to_owned(), why: why.to_owned() };
        let lines = file.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let identities: Vec<Identity> = lines.map(str::parse).collect::<Result<_, &str>>().map_err(wrong)?;
        if identities.is_empty() {
            return Err(wrong("there is no identity in it"));
        }
        self.identities.push((name.to_owned(), identities));
        Ok(())
    }

    /// Takes a piece that its custodian encrypted anew.
    ///
    /// # Errors
    /// It is too long.
    pub fn piece(&mut self, name: &str, file: Vec<u8>) -> Result<(), CustodyError> {
        if file.len() > MAX_PIECE {
            let why = format!("has more than {MAX_PIECE} bytes, so it is none");
            return Err(CustodyError::Piece { who: name.to_owned(), why });
        }
        self.pieces.push((name.to_owned(), file));
        Ok(())
    }

    /// The backup key, from as many different good pieces as it takes.
    ///
    /// # Errors
    /// [`CustodyError`] says whose piece or identity does not serve, or how many are missing.
    pub(super) fn key(&self, backup: &Backup) -> Result<Secret32, CustodyError> {
        let head = backup.head();
        let pieces = self.gather(backup)?;
        let needed = usize::from(head.threshold);
        if pieces.len() < needed {
            let names: Vec<&str> = pieces.keys().map(String::as_str).collect();
            return Err(CustodyError::TooFew {
                given: pieces.len(),
                needed: head.threshold,
                names: names.join(", "),
                custodians: names_of(backup),
            });
        }
        let mut shares: Vec<Vec<u8>> = pieces.values().take(needed).map(|piece| piece.point.to_vec()).collect();
        let combined = Gf256::combine_bytes(&shares).map(Zeroizing::new);
        shares.iter_mut().for_each(Zeroize::zeroize);
        let key = combined.ok().and_then(|key| Secret32::from_slice(&key)).ok_or(CustodyError::NotItsKey)?;
        if super::format::Proof::by(&key).id() == head.id { Ok(key) } else { Err(CustodyError::NotItsKey) }
    }

    /// Opens the one piece that these identities open, and encrypts it to somebody else: for a custodian who keeps their
    /// identity to themselves. Gives the custodian's name with it.
    ///
    /// # Errors
    /// [`CustodyError`]: no piece of this backup is theirs, or the recipient is none.
    pub fn piece_for(&self, backup: &Backup, recipient: &str) -> Result<(String, Vec<u8>), CustodyError> {
        let pieces = self.gather(backup)?;
        let few = || CustodyError::WrongCustodian { name: "the identity".into(), custodians: names_of(backup) };
        let (name, piece) = pieces.into_iter().next().ok_or_else(few)?;
        let failed = |why: String| CustodyError::Piece { who: name.clone(), why };
        let plain = Zeroizing::new(encoded(&piece).map_err(|e| failed(e.to_string()))?);
        let file = encrypt(recipient, &plain).map_err(failed)?;
        Ok((name, file))
    }

    /// Every piece that is given, by its custodian; each is what the head commits to.
    fn gather(&self, backup: &Backup) -> Result<BTreeMap<String, Piece>, CustodyError> {
        let mut pieces = BTreeMap::new();
        let mut put = |piece: Piece| match pieces.insert(piece.custodian.clone(), piece) {
            None => Ok(()),
            Some(twice) => Err(CustodyError::Twice(twice.custodian.clone())),
        };
        let mut opens: Vec<bool> = Vec::new();
        for (_, identities) in &self.identities {
            let own = identities.iter().map(|identity| identity.to_public().to_string());
            let places: Vec<usize> = own
                .filter_map(|public| backup.head().custodians.iter().position(|one| one.recipient == public))
                .collect();
            opens.push(!places.is_empty());
            for place in places {
                let (Some(custodian), Some(file)) =
                    (backup.head().custodians.get(place), backup.body.pieces.get(place))
                else {
                    continue;
                };
                put(opened(&custodian.name, file, identities, backup)?)?;
            }
        }
        for (name, file) in &self.pieces {
            let (place, piece) = self.brought(name, file, backup)?;
            if let Some(opens) = opens.get_mut(place) {
                *opens = true;
            }
            put(piece)?;
        }
        match self.identities.iter().zip(opens).find(|(_, opens)| !opens) {
            None => Ok(pieces),
            Some(((name, _), _)) => {
                Err(CustodyError::WrongCustodian { name: name.clone(), custodians: names_of(backup) })
            }
        }
    }

    /// A piece that was encrypted anew, and the place of the identity file that opens it.
    fn brought(&self, name: &str, file: &[u8], backup: &Backup) -> Result<(usize, Piece), CustodyError> {
        let mut refused = None;
        for (place, (_, identities)) in self.identities.iter().enumerate() {
            match opened(name, file, identities, backup) {
                Ok(piece) => return Ok((place, piece)),
                Err(error) if is_closed(file, identities) => refused = refused.or(Some(error)),
                // It opens, and is not good.
                Err(error) => return Err(error),
            }
        }
        let why = "is given, but no identity that opens it".to_owned();
        Err(refused.unwrap_or(CustodyError::Piece { who: name.to_owned(), why }))
    }
}

fn names_of(backup: &Backup) -> String {
    let names: Vec<&str> = backup.head().custodians.iter().map(|custodian| custodian.name.as_str()).collect();
    names.join(", ")
}

fn is_closed(file: &[u8], identities: &[Identity]) -> bool {
    decrypt(file, identities).is_err()
}

/// A piece, if it opens, is of this backup, and is what the head commits to for its custodian.
fn opened(who: &str, file: &[u8], identities: &[Identity], backup: &Backup) -> Result<Piece, CustodyError> {
    let failed = |why: String| CustodyError::Piece { who: who.to_owned(), why };
    let plain = decrypt(file, identities).map_err(|why| failed(format!("does not open: {why}")))?;
    let piece: Piece = decoded(&plain).map_err(|why| failed(format!("is none: {why}")))?;
    let head = backup.head();
    if piece.format != FORMAT || piece.backup != head.id {
        return Err(failed(format!("belongs to the backup {}, this one is {}", piece.backup, head.id)));
    }
    let promised: Option<Digest32> =
        head.custodians.iter().find(|custodian| custodian.name == piece.custodian).map(|custodian| custodian.piece);
    if promised == Some(crate::digest(&plain)) {
        Ok(piece)
    } else {
        Err(failed("is not the one that was made for this backup".into()))
    }
}

fn decrypt(file: &[u8], identities: &[Identity]) -> Result<Zeroizing<Vec<u8>>, String> {
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let decryptor = age::Decryptor::new(file).map_err(|e| said(&e))?;
    let identities = identities.iter().map(|identity| identity as &dyn age::Identity);
    let reader = decryptor.decrypt(identities.chain(iter::empty())).map_err(|e| said(&e))?;
    // As large as it can get from the start, so that no shorter copy is left behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(MAX_PIECE));
    let limit = u64::try_from(MAX_PIECE).unwrap_or(0);
    std::io::Read::read_to_end(&mut std::io::Read::take(reader, limit), &mut plain).map_err(|e| said(&e))?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn as_many_pieces_as_it_takes_give_the_key_and_fewer_give_another() {
        let key = Secret32::random().unwrap();
        let pieces: Vec<Vec<u8>> = split_key(&key, 3, 5).unwrap().iter().map(|piece| piece.to_vec()).collect();
        for chosen in [[0, 1, 2], [4, 2, 0], [1, 3, 4]] {
            let chosen: Vec<Vec<u8>> = chosen.iter().map(|place| pieces[*place].clone()).collect();
            assert_eq!(Gf256::combine_bytes(&chosen).unwrap(), key.expose());
            assert_ne!(Gf256::combine_bytes(&chosen[..2]).unwrap(), key.expose());
        }
    }

    /// What other crates, and earlier releases of this one, got wrong: a coefficient that is never zero, or always odd, says
    /// something of the key to who holds too few pieces.
    #[test]
    fn a_single_piece_takes_every_value_whatever_the_key() {
        let key = Secret32::fill(|key| key.fill(0xa5));
        let mut seen = BTreeSet::new();
        for _ in 0..400 {
            seen.extend(split_key(&key, 2, 2).unwrap()[0][1..].iter().copied());
        }
        assert_eq!(seen.len(), 256);
    }
}
